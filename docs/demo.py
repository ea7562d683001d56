"""VGG16 before and after `docs/rules/vgg16_batchnorm.rw`, and what holds afterwards. Run by `make demo`.

Every line with a check mark is a comparison made here, in this run. One that fails gets a cross, and the exit code 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from rewrite import apply_rules, get_report
from rewrite.backends.torch import torchvision_schemas

torchvision_schemas.declare()

import torchvision  # noqa: E402  (some builds of torchvision need the line above first)

RULES = Path(__file__).parent / "rules" / "vgg16_batchnorm.rw"


def main() -> int:
    """Prints the demo and returns its exit code."""
    before = torchvision.models.vgg16(weights=None).eval()
    given = fingerprint(before)

    print(f"{RULES.parent.parent.name}/rules/{RULES.name}\n")
    print("\n".join("    " + line for line in statements(RULES.read_text(encoding="utf-8"))))

    start = time.perf_counter()
    after = apply_rules(before, RULES)
    milliseconds = (time.perf_counter() - start) * 1000

    print(f"\nThe feature extractor of torchvision's VGG16 before, and {milliseconds:.0f} ms later:\n")
    print("\n".join(side_by_side(before.features, after.features)))
    print("\n+ is new. Every other line is the layer it was, under the name it had.\n")

    facts = [*structure(before, after), *weights(before, after), *runs(before, after)]
    facts.append((fingerprint(before) == given, "the model that was given is untouched"))
    for holds, fact in facts:
        print(f"{'✓' if holds else '✗'} {fact}")
    failed = sum(not holds for holds, _ in facts)
    print(f"\n{len(facts) - failed} of {len(facts)} facts hold")
    return 1 if failed else 0


def statements(text: str) -> list[str]:
    """The lines of a rule file that are not comments."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "rw "))]


def side_by_side(before: nn.Module, after: nn.Module) -> Iterator[str]:
    """Both lists of layers in two columns, aligned by name."""
    old = dict(before.named_children())
    names = max(len(name) for name, _ in after.named_children())
    for name, layer in after.named_children():
        left = f"{name:>2}  {short(old[name])}" if name in old else ""
        yield f"    {left:<26}{'  ' if name in old else '+ '}{name:<{names}}  {short(layer)}"


def short(layer: nn.Module) -> str:
    """A layer with the arguments that tell it from its neighbours."""
    match layer:
        case nn.Conv2d():
            return f"Conv2d({layer.in_channels}, {layer.out_channels}, {layer.kernel_size[0]})"
        case nn.BatchNorm2d():
            return f"BatchNorm2d({layer.num_features})"
        case nn.MaxPool2d():
            return f"MaxPool2d({layer.kernel_size})"
        case _:
            return type(layer).__name__


def structure(before: nn.Module, after: nn.Module) -> Iterator[tuple[bool, str]]:
    """What the model is: (whether it holds, in words) for each fact, here and below."""
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in before.modules())
    sites = get_report(after).sites
    yield sites == convolutions == 13, f"{sites} sites, one for each of the {convolutions} convolutions"

    last = after.classifier[6]
    still = (
        isinstance(after, type(before)) and isinstance(last, nn.Linear) and last.weight is before.classifier[6].weight
    )
    yield still, f"still a {type(before).__name__}: isinstance, model.features and model.classifier[6] work as before"


def weights(before: nn.Module, after: nn.Module) -> Iterator[tuple[bool, str]]:
    """What the model knows."""
    old, new = before.state_dict(), after.state_dict()
    same = [key for key in old if key in new and shares(new[key], old[key])]
    yield len(same) == len(old), f"{len(same)} of {len(old)} original keys are there, with the same tensors"

    with torch.device("meta"):  # loading would write into tensors that both models share, so another one is loaded
        empty = torchvision.models.vgg16(weights=None)
    missing, unexpected = apply_rules(empty, RULES).load_state_dict(old, strict=False, assign=True)
    new_layers = dict(after.named_modules()).keys() - dict(before.named_modules()).keys()
    only_new = {key.rpartition(".")[0] for key in missing} == new_layers
    yield (
        only_new and not unexpected,
        f"an old state_dict loads; only the {len(missing)} keys of the new layers are missing",
    )


def runs(before: nn.Module, after: nn.Module) -> Iterator[tuple[bool, str]]:
    """What the model does."""
    image = torch.rand(1, 3, 224, 224)
    _, shape_before = executed(before, image)
    order, shape_after = executed(after, image)
    behind = [order[number + 1 : number + 3] for number, layer in enumerate(order) if isinstance(layer, nn.Conv2d)]
    right = [isinstance(second, nn.BatchNorm2d) and isinstance(third, nn.ReLU) for second, third in behind]
    yield (
        len(right) == 13 and all(right),
        f"executed as Conv2d -> BatchNorm2d -> ReLU at {sum(right)} of {len(right)} convolutions",
    )
    yield (
        shape_before == shape_after == (1, 1000),
        f"output shape {shape_before} before and {shape_after} after, seen by running both",
    )


def fingerprint(model: nn.Module) -> tuple[object, ...]:
    """Its printed form, and for each tensor the key, the place in memory and how often it was written to."""
    tensors = [(key, tensor.data_ptr(), tensor._version) for key, tensor in model.state_dict(keep_vars=True).items()]
    return repr(model), tensors, [parameter.requires_grad for parameter in model.parameters()]


def executed(model: nn.Module, image: torch.Tensor) -> tuple[list[nn.Module], tuple[int, ...]]:
    """The layers without children in the order in which one forward pass calls them, and the output's shape."""
    ran: list[nn.Module] = []
    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(lambda module, *_: ran.append(module)) for leaf in leaves]
    with torch.no_grad():
        output = model(image)
    for handle in handles:
        handle.remove()
    return ran, tuple(output.shape)


def shares(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are views of one memory with one layout."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


if __name__ == "__main__":
    sys.exit(main())
