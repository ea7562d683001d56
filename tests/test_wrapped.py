"""Models in wrappers: taken out and wrapped again where a wrapper only runs them, else refused with the remedy."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewrite import Rules, SafetyError, apply_rules, explain_rules, get_report, plan_rules, probe

pytestmark = pytest.mark.filterwarnings("ignore")
"""torch's own compiler, quantizer and distributed part warn of themselves"""

RULES = Rules("after ReLU: insert Dropout(0.5)")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


def image() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


class TestCompiled:
    def test_the_inside_is_changed_and_compiled_again(self) -> None:
        seen: list[int] = []

        def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
            seen.append(sum(node.op == "call_function" for node in graph.graph.nodes))
            return graph.forward

        model = Net().eval()
        compiled = torch.compile(model, backend=backend)
        result: Any = apply_rules(compiled, RULES)
        assert type(result) is type(compiled)
        assert result._orig_mod is not model
        assert isinstance(result._orig_mod.relu_dropout, nn.Dropout)
        assert get_report(result).sites == 1
        assert not seen
        torch._dynamo.reset()
        assert torch.equal(result(image()), model(image()))
        assert len(seen) == 1, "it was compiled, with the backend of the given one"
        assert [path for path, _ in compiled.named_modules()] == [
            path for path, _ in torch.compile(Net(), backend="eager").named_modules()
        ]

    def test_what_looks_on_takes_it_too(self) -> None:
        compiled = torch.compile(Net(), backend="eager")
        assert plan_rules(compiled, RULES).report.model == "Net"
        assert "relu" in str(explain_rules(compiled, RULES))
        assert probe(compiled).inputs is not None


class TestDataParallel:
    def test_the_inside_is_changed_and_wrapped_again(self) -> None:
        model = nn.DataParallel(Net().eval()).eval()
        model.note = "kept"
        result = apply_rules(model, RULES)
        assert type(result) is nn.DataParallel
        assert result is not model
        assert result.note == "kept"
        assert result.device_ids == model.device_ids
        assert list(result.state_dict()) == list(model.state_dict())
        assert not hasattr(model.module, "relu_dropout")
        assert isinstance(result.module.relu_dropout, nn.Dropout)
        assert torch.equal(result(image()), model(image()))

    def test_in_one_another(self) -> None:
        model = nn.DataParallel(torch.compile(Net(), backend="eager"))
        result: Any = apply_rules(model, RULES)
        assert isinstance(result.module._orig_mod.relu_dropout, nn.Dropout)

    def test_paths_are_those_of_the_inside(self) -> None:
        result = apply_rules(nn.DataParallel(Net()), Rules('freeze "conv"'))
        assert not result.module.conv.weight.requires_grad


class TestRefused:
    @pytest.mark.usefixtures("process_group")
    def test_distributed(self) -> None:
        model = nn.parallel.DistributedDataParallel(Net())
        with pytest.raises(SafetyError, match=r"(?s)RW504.*DistributedDataParallel.*apply the rules to `model.module`"):
            apply_rules(model, RULES)
        assert get_report(apply_rules(model.module, RULES)).sites == 1

    def test_quantized(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.ao.quantization.quantize_dynamic(copy.deepcopy(Net()), {nn.Linear})
        with pytest.raises(SafetyError, match=r"(?s)RW504.*`fc` is a .*apply the rules first, and quantize the result"):
            apply_rules(model, RULES)

    def test_a_part_that_is_compiled(self) -> None:
        model = nn.Sequential(torch.compile(Net(), backend="eager"), nn.ReLU())
        with pytest.raises(SafetyError, match="RW504"):
            apply_rules(model, RULES)


class TestAdapters:
    def test_of_peft(self) -> None:
        """A model with adapters is a module like any other: layers in it are reached, and it stays what it is."""
        pytest.importorskip("transformers")
        peft = pytest.importorskip("peft")
        from tiny_transformers import TYPES

        base = TYPES["llama"].build("llama")
        model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
        inputs = TYPES["llama"].inputs()
        result = apply_rules(model, Rules("after SiLU: insert Dropout(0.5)"))
        assert isinstance(result, peft.PeftModel)
        assert get_report(result).sites == 2
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, result(**inputs).logits)
        assert list(result.state_dict()) == list(model.state_dict())
