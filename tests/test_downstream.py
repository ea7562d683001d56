"""Tools that take a rewritten model on: exporters, quantizers, adapters, wrappers that train."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from rewrite import Rules, apply_rules, get_report

pytestmark = pytest.mark.filterwarnings("ignore")
"""torch's exporters, quantizers and distributed part warn of themselves"""

RULES = Rules("""
after Conv2d: insert BatchNorm2d
after ReLU: insert Dropout(0.5)
wrap Linear with LoRA(rank=2)
""")


class Captured(nn.Module):
    """A forward that is written anew as a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(3, 8, 1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.relu(self.conv(x)) + self.down(x)).mean((2, 3)))


class Attached(Captured):
    """A forward that stays as it is, with what is inserted attached to its layers; exporters can read it."""

    def forward(self, x: Tensor) -> Tensor:
        shapes = {len(x.shape): self.conv}
        both = [self.relu(layer(x)) if layer is self.conv else layer(x) for layer in (shapes[x.dim()], self.down)]
        return self.fc(torch.stack([y.mean((2, 3)) for y in both]).sum(0))


def images() -> Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


@pytest.fixture(params=[Captured, Attached])
def result(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = request.param().eval()
    changed = apply_rules(model, RULES, example_inputs=images())
    assert get_report(changed).sites == 4
    with torch.no_grad():
        for key, value in changed.named_parameters():
            if "lora_B" in key:
                value.normal_()
    return changed  # type: ignore[no-any-return]


class TestExporters:
    def test_exported_program(self, result: nn.Module) -> None:
        program = torch.export.export(result, (images(),))
        assert torch.equal(program.module()(images()), result(images()))
        assert set(program.state_dict) == set(result.state_dict())

    def test_onnx(self, result: nn.Module) -> None:
        pytest.importorskip("onnxscript")
        reference = pytest.importorskip("onnx.reference")
        program: Any = torch.onnx.export(result, (images(),), dynamo=True, verbose=False)
        graph = program.model_proto
        (found,) = reference.ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: images().numpy()})
        torch.testing.assert_close(torch.from_numpy(found), result(images()).detach(), atol=1e-5, rtol=1e-5)

    def test_compiled(self, result: nn.Module) -> None:
        compiled = torch.compile(result, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(images()), result(images()))


class TestToolsOnLayers:
    def test_quantized_afterwards(self, result: nn.Module) -> None:
        """What the refusal of quantized models says: the rules first, then the quantizer."""
        quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(result), {nn.Linear})
        assert "quantized" in type(quantized.get_submodule("fc.base_layer")).__module__
        torch.testing.assert_close(quantized(images()), result(images()), atol=0.05, rtol=0.05)

    def test_pruned_afterwards(self, result: nn.Module) -> None:
        prune.l1_unstructured(result.get_submodule("conv"), "weight", 0.5)
        result(images()).sum().backward()
        weight = dict(result.named_parameters())["conv.weight_orig"]
        assert weight.grad is not None
        assert int((weight.grad == 0).sum()) >= weight.numel() // 2

    def test_functional_calls(self, result: nn.Module) -> None:
        parameters = {key: value.detach() for key, value in result.named_parameters()}
        gradients = grad(lambda values: functional_call(result, values, (images(),)).square().sum())(parameters)
        result(images()).square().sum().backward()
        for key, value in result.named_parameters():
            torch.testing.assert_close(gradients[key], value.grad)

    def test_averaged(self, result: nn.Module) -> None:
        average = AveragedModel(result)
        average.update_parameters(result)
        assert torch.equal(average.eval()(images()), result(images()))

    def test_autocast_and_dtypes(self, result: nn.Module) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert result(images()).dtype == torch.bfloat16
        assert copy.deepcopy(result).double()(images().double()).dtype == torch.float64
        assert result.to("meta")(images().to("meta")).shape == (2, 5)


class TestDistributed:
    @pytest.mark.usefixtures("process_group")
    def test_wrapped_afterwards(self, result: nn.Module) -> None:
        """What the refusal of such models says; a process waits for ever for a weight that no step reaches."""
        alone = copy.deepcopy(result)
        wrapped = nn.parallel.DistributedDataParallel(result)
        for model in (alone, wrapped):
            torch.manual_seed(0)
            model.train()(images()).square().sum().backward()
        for (key, value), own in zip(result.named_parameters(), alone.parameters(), strict=True):
            assert value.grad is not None, key
            torch.testing.assert_close(value.grad, own.grad)


class TestTransformers:
    """With models of transformers: their own switches and savers, and PEFT on top."""

    @pytest.fixture
    def llama(self) -> nn.Module:
        pytest.importorskip("transformers")
        from tiny_transformers import TYPES

        return TYPES["llama"].build("llama")

    @pytest.fixture
    def inputs(self) -> dict[str, Tensor]:
        from tiny_transformers import TYPES

        return TYPES["llama"].inputs()

    def test_gradient_checkpointing(self, llama: nn.Module, inputs: dict[str, Tensor]) -> None:
        """Activations are computed again in the backward pass, with the same dropped values."""
        changed: Any = apply_rules(llama, Rules("after Linear: insert Dropout(0.1)"))
        gradients = []
        for saving in (False, True):
            twin = copy.deepcopy(changed).train()
            if saving:
                twin.gradient_checkpointing_enable()
                assert twin.is_gradient_checkpointing
            torch.manual_seed(0)
            twin(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
            gradients.append({key: value.grad for key, value in twin.named_parameters()})
        plain, saved = gradients
        assert all(value is not None for value in plain.values())
        for key, value in plain.items():
            torch.testing.assert_close(saved[key], value, msg=key)

    def test_saved_and_loaded(self, llama: Any, inputs: dict[str, Tensor], tmp_path: Path) -> None:
        """The library's own files: weights of the result, taken up by the same rules on a fresh model."""
        rules = Rules("after SiLU: insert Dropout(0.5)\nafter RMSNorm | LlamaRMSNorm: insert RMSNorm")
        changed: Any = apply_rules(llama, rules, example_inputs=inputs)
        with torch.no_grad():
            for value in changed.parameters():
                value.add_(0.01)
        changed.save_pretrained(tmp_path)
        safetensors = pytest.importorskip("safetensors.torch")
        stored = safetensors.load_file(tmp_path / "model.safetensors")
        again: Any = apply_rules(type(llama)(llama.config).eval(), rules, example_inputs=inputs)
        missing, unexpected = again.load_state_dict(stored, strict=False)
        assert not unexpected
        assert set(missing) <= set(llama._tied_weights_keys)
        again.tie_weights()
        with torch.no_grad():
            assert torch.equal(again(**inputs).logits, changed(**inputs).logits)

    def test_adapters_of_peft_afterwards(self, llama: Any, inputs: dict[str, Tensor], tmp_path: Path) -> None:
        peft = pytest.importorskip("peft")
        rules = Rules("after SiLU: insert Dropout(0.5)\nafter Linear: insert Identity")
        settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        first = peft.get_peft_model(apply_rules(llama, rules), settings).eval()
        first.save_pretrained(tmp_path)
        second = peft.PeftModel.from_pretrained(apply_rules(llama, rules), tmp_path).eval()
        with torch.no_grad():
            wanted = first(**inputs).logits
            assert torch.equal(second(**inputs).logits, wanted)
            assert not torch.equal(llama(**inputs).logits, wanted)
        merged = first.merge_and_unload()
        with torch.no_grad():
            torch.testing.assert_close(merged(**inputs).logits, wanted, atol=1e-4, rtol=1e-4)
