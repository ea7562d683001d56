"""The rule files in `docs/rules` on the real torchvision models, counted by running the models as they were."""

from __future__ import annotations

import copy
import functools
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import calls, count_calls, edges, order_of_calls
from torch import Tensor, nn

from rewrite import Report, RewriteError, Rules, apply_rules, get_report, plan_rules

models = pytest.importorskip("torchvision.models")

RULES = Path(__file__).parent.parent / "docs" / "rules"
SIZES = {"inception_v3": 96}
"""height and width of the input where 64 is too small"""
BRANCHING = {
    "resnet50": {"Conv2d": 53, "ReLU": 49},
    "inception_v3": {"Conv2d": 94, "ReLU": 94},
    "googlenet": {"Conv2d": 57, "ReLU": 57},
    "densenet121": {"Conv2d": 120, "ReLU": 121},
    "shufflenet_v2_x1_0": {"Conv2d": 56, "ReLU": 37},
    "efficientnet_b0": {"Conv2d": 81, "SiLU": 49},
}
"""calls in eval mode of the models as torchvision makes them"""


@functools.lru_cache(maxsize=4)
def build(name: str) -> nn.Module:
    """The model with random weights, in eval mode, shared between tests: no rule changes the model it is given."""
    options = {"init_weights": False} if name in ("inception_v3", "googlenet", "vgg16") else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.get_model(name, **options).eval()


def image(name: str, batch: int = 1) -> Tensor:
    size = SIZES.get(name, 64)
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def rewritten(name: str, rules: Any, **options: Any) -> tuple[nn.Module, nn.Module, Report]:
    """The model, what the rules make of it, and the report; the model itself must stay as it is."""
    model = build(name)
    before = fingerprint(model)
    result = apply_rules(model, rules, **options)
    assert fingerprint(model) == before
    assert isinstance(result, type(model))
    assert not any(module.training for module in result.modules())
    return model, result, get_report(result)


def fingerprint(model: nn.Module) -> list[Any]:
    """Changes whenever a module, a parameter, a buffer or a value in one of them does."""
    facts: list[Any] = [
        (path, id(module), type(module).forward, module.training, len(vars(module)))
        for path, module in model.named_modules()
    ]
    held = [*model.named_parameters(), *model.named_buffers()]
    return facts + [(path, id(value), value._version, value.requires_grad) for path, value in held]


def difference(model: nn.Module, result: nn.Module, name: str) -> float:
    """Largest difference between the outputs, as a share of the largest output."""
    with torch.no_grad():
        was, now = model(image(name)), result(image(name))
    return float((was - now).abs().max() / was.abs().max())


def check_keys(model: nn.Module, result: nn.Module) -> set[str]:
    """Every old key is there with its own tensor, an old checkpoint lacks the new keys only; the new keys."""
    old, new = model.state_dict(), result.state_dict()
    assert set(old) <= set(new)
    assert all(old[key].data_ptr() == new[key].data_ptr() for key in old)
    added = set(new) - set(old)
    loaded = copy.deepcopy(result, {id(value): value for value in result.parameters()}).load_state_dict(
        old, strict=False
    )
    counters = {key for key in added if key.endswith(".num_batches_tracked")}  # torch never calls these missing
    assert set(loaded.missing_keys) == added - counters
    assert not loaded.unexpected_keys
    assert set(get_report(result).new_keys) == added
    return added


def trainable(model: nn.Module) -> set[str]:
    return {path for path, value in model.named_parameters() if value.requires_grad}


class TestVgg16:
    """Batch normalisation, and four ways to train a part only."""

    def test_batchnorm_behind_every_convolution(self) -> None:
        model, result, report = rewritten("vgg16", RULES / "vgg16_batchnorm.rw")
        assert report.sites == count_calls(model, image("vgg16"), "Conv2d") == 13
        order = order_of_calls(result, image("vgg16"), ("Conv2d", "BatchNorm2d", "ReLU"))
        assert order == ["Conv2d", "BatchNorm2d", "ReLU"] * 13 + ["ReLU"] * 2
        assert isinstance(result, models.VGG)
        assert result.classifier[6].weight is model.classifier[6].weight
        assert isinstance(result.features, nn.Sequential)
        assert len(result.features) == len(model.features) + 13
        assert len(check_keys(model, result)) == 13 * 5
        widths = [module.num_features for module in result.modules() if isinstance(module, nn.BatchNorm2d)]
        assert widths == [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert difference(model, result, "vgg16") < 1e-3
        with torch.no_grad():
            assert result.features(image("vgg16")).shape == (1, 512, 2, 2)

    def test_batchnorm_is_that_of_vgg16_bn(self) -> None:
        """Given the weights of torchvision's own VGG16 with batch normalisation, the outputs are the same."""
        with torch.device("meta"):
            wanted, plain = models.vgg16_bn().eval(), models.vgg16().eval()
        wanted.features = models.vgg16_bn(init_weights=False).features.eval()
        plain.features = models.vgg16(init_weights=False).features.eval()
        result = apply_rules(plain, RULES / "vgg16_batchnorm.rw")
        values = list(wanted.features.state_dict().values())
        result.features.load_state_dict(dict(zip(result.features.state_dict(), values, strict=True)))
        with torch.no_grad():
            assert torch.equal(result.features(image("vgg16")), wanted.features(image("vgg16")))

    def test_transfer_learning_trains_the_new_layer_only(self) -> None:
        model, result, report = rewritten("vgg16", RULES / "transfer_head.rw")
        assert trainable(result) == {"classifier.6.weight", "classifier.6.bias"}
        assert trainable(model) == {path for path, _ in model.named_parameters()}
        assert result.classifier[6].out_features == 2
        assert report.new_parameters == 2 * 4096 + 2
        assert result(image("vgg16")).shape == (1, 2)
        kept = {key for key in model.state_dict() if not key.startswith("classifier.6.")}
        assert all(result.state_dict()[key].data_ptr() == model.state_dict()[key].data_ptr() for key in kept)
        result(image("vgg16")).sum().backward()
        assert {path for path, value in result.named_parameters() if value.grad is not None} == trainable(result)

    def test_classifier_built_anew(self) -> None:
        model, result, _ = rewritten("vgg16", RULES / "classifier_anew.rw")
        assert result(image("vgg16")).shape == (1, 10)
        assert trainable(result)
        assert all(path.startswith("classifier") for path in trainable(result))
        assert not any(path.startswith("features") for path in trainable(result))
        linear = [module for module in result.modules() if isinstance(module, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == [(25088, 256), (256, 10)]
        assert all(
            result.state_dict()[key].data_ptr() == value.data_ptr()
            for key, value in model.state_dict().items()
            if key.startswith("features")
        )

    def test_classifier_kept_and_drawn_anew(self) -> None:
        model, result, _ = rewritten("vgg16", RULES / "classifier_reset.rw")
        old, new = model.state_dict(), result.state_dict()
        assert list(old) == list(new)
        for key in old:
            if key.startswith("features"):
                assert old[key].data_ptr() == new[key].data_ptr()
            else:
                assert old[key].data_ptr() != new[key].data_ptr()
        for layer in (result.classifier[0], result.classifier[3], result.classifier[6]):
            assert not layer.bias.any()
            assert float(layer.weight.detach().std()) == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.02)
        assert trainable(result) == {
            f"classifier.{number}.{part}" for number in (0, 3, 6) for part in ("weight", "bias")
        }
        again = apply_rules(model, RULES / "classifier_reset.rw")
        assert torch.equal(again.classifier[6].weight, result.classifier[6].weight)
        other = apply_rules(model, RULES / "classifier_reset.rw", seed=1)
        assert not torch.equal(other.classifier[6].weight, result.classifier[6].weight)

    def test_features_frozen(self) -> None:
        model, result, report = rewritten("vgg16", RULES / "finetune_features_frozen.rw")
        assert trainable(result) == {path for path in trainable(model) if path.startswith("classifier")}
        assert report.frozen_parameters == sum(value.numel() for value in model.features.parameters())
        assert not check_keys(model, result)
        assert difference(model, result, "vgg16") == 0


class TestMobileNets:
    """Dropout behind every activation."""

    @pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
    @pytest.mark.parametrize(
        ("rules", "activations"),
        [
            ("mobilenet_dropout.rw", ("ReLU6", "Hardswish", "ReLU")),
            ("dropout_after_activations.rw", ("ReLU6", "Hardswish", "ReLU", "Hardsigmoid")),
        ],
    )
    def test_dropout_behind_every_activation(self, name: str, rules: str, activations: tuple[str, ...]) -> None:
        model, result, report = rewritten(name, RULES / rules)
        counted = Counter(order_of_calls(model, image(name), activations))
        assert report.sites == sum(counted.values())
        if name == "mobilenet_v2":
            assert counted == {"ReLU6": 35}
        order = order_of_calls(result, image(name), (*activations, "Dropout"))
        behind = [follower for one, follower in itertools.pairwise(order) if one in activations]
        assert behind == ["Dropout"] * report.sites
        assert not check_keys(model, result)
        assert difference(model, result, name) == 0
        rates = Counter(module.p for module in result.modules() if isinstance(module, nn.Dropout))
        assert rates[0.01] == report.sites

    def test_the_rate_is_a_parameter_of_the_file(self) -> None:
        _, result, report = rewritten("mobilenet_v2", RULES / "dropout_after_activations.rw", params={"rate": 0.5})
        rates = Counter(module.p for module in result.modules() if isinstance(module, nn.Dropout))
        assert rates[0.5] == report.sites

    def test_dropout_is_active_in_training(self) -> None:
        _, result, _ = rewritten("mobilenet_v2", Rules("after ReLU6: insert Dropout(0.5)"))
        result = copy.deepcopy(result).train()
        result.classifier[0].p = 0.0
        with torch.no_grad():
            assert not torch.equal(result(image("mobilenet_v2", 2)), result(image("mobilenet_v2", 2)))


class TestBranching:
    """Models with branches, merges, functions instead of layers, and layers called many times."""

    @pytest.mark.parametrize("name", BRANCHING)
    def test_batchnorm_behind_every_convolution(self, name: str) -> None:
        model, result, report = rewritten(name, RULES / "batchnorm_after_conv.rw")
        sites = count_calls(model, image(name), "Conv2d")
        assert report.sites == sites == BRANCHING[name]["Conv2d"]
        order = order_of_calls(result, image(name))
        behind = [follower for one, follower in itertools.pairwise(order) if one == "Conv2d"]
        assert behind == ["BatchNorm2d"] * sites
        found = calls(result, image(name))
        assert len(edges(found, "Conv2d", "BatchNorm2d")) == sites
        check_keys(model, result)
        assert difference(model, result, name) < 1e-3

    @pytest.mark.parametrize("name", BRANCHING)
    def test_dropout_behind_every_activation(self, name: str) -> None:
        activation = "SiLU" if name == "efficientnet_b0" else "ReLU"
        model, result, report = rewritten(name, Rules(f"after {activation}: insert Dropout(0.01)"))
        sites = count_calls(model, image(name), activation)
        assert report.sites == sites == BRANCHING[name][activation]
        assert count_calls(result, image(name), "Dropout") == sites + count_calls(model, image(name), "Dropout")
        assert len(edges(calls(result, image(name)), activation, "Dropout")) >= sites
        assert not check_keys(model, result)
        assert difference(model, result, name) == 0

    def test_a_layer_that_has_its_batchnorm_is_left_alone(self) -> None:
        condition = "where not has_next(BatchNorm2d)"
        with pytest.raises(RewriteError, match="RW301"):
            apply_rules(build("resnet50"), Rules(f"after Conv2d {condition}: insert BatchNorm2d"))
        result = apply_rules(build("efficientnet_b0"), Rules(f"after Conv2d {condition}: insert BatchNorm2d"))
        assert get_report(result).sites == 81 - 49

    def test_one_operand_of_the_residual_addition(self) -> None:
        model, result, report = rewritten("resnet50", RULES / "residual_operand.rw")
        assert report.sites == count_calls(model, image("resnet50"), "add") == 16
        found = calls(result, image("resnet50"))
        assert [number for _, _, number in edges(found, "Dropout", "add")] == [0] * 16
        assert not check_keys(model, result)
        assert difference(model, result, "resnet50") == 0

    def test_one_branch_of_the_inception_module(self) -> None:
        model, result, report = rewritten("inception_v3", RULES / "inception_branch.rw")
        assert report.sites == 3
        found = calls(result, image("inception_v3"))
        assert [number for _, _, number in edges(found, "BatchNorm2d", "cat")] == [3] * 3
        was = edges(calls(model, image("inception_v3")), "ReLU", "cat")
        now = edges(found, "ReLU", "cat")
        assert len(now) == len(was) - 3
        assert len(check_keys(model, result)) == 3 * 5
        assert difference(model, result, "inception_v3") < 1e-3

    def test_auxiliary_heads_are_edited_for_the_mode_that_runs_them(self) -> None:
        model, result, report = rewritten("googlenet", Rules("after Conv2d: insert BatchNorm2d"))
        (clause,) = report.clauses
        training = copy.deepcopy(model).train()
        sites = count_calls(training, image("googlenet", 2), "Conv2d")
        assert len(clause.sites) + len(clause.other_mode) == sites == 59
        order = order_of_calls(copy.deepcopy(result).train(), image("googlenet", 2))
        behind = [follower for one, follower in itertools.pairwise(order) if one == "Conv2d"]
        assert behind == ["BatchNorm2d"] * sites

    def test_frozen_statistics_stay_through_training(self) -> None:
        model, result, _ = rewritten("resnet50", RULES / "transfer_head.rw")
        assert trainable(result) == {"fc.weight", "fc.bias"}
        result = copy.deepcopy(result).train()
        before = {path: value.clone() for path, value in result.named_buffers()}
        optimizer = torch.optim.SGD([value for value in result.parameters() if value.requires_grad], 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            result(image("resnet50", 2)).square().sum().backward()
            optimizer.step()
        assert all(torch.equal(value, before[path]) for path, value in result.named_buffers())
        assert all(
            torch.equal(value, dict(model.named_parameters())[path])
            for path, value in result.named_parameters()
            if not path.startswith("fc.")
        )

    def test_planning_finds_the_same_sites(self) -> None:
        rules = Rules("after ReLU: insert Dropout(0.01)")
        planned = plan_rules(build("inception_v3"), rules).report
        applied = get_report(apply_rules(build("inception_v3"), rules))
        assert [clause.sites for clause in planned.clauses] == [clause.sites for clause in applied.clauses]
