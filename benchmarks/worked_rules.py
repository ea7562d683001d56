"""The worked rules of the language, each on a real network that has what it is about.

    python -m benchmarks.worked_rules [numbers ...]

For each rule: the network, the number of sites, a run of the rewritten network, and the calls around the first site
before and after. Ends with 1 if a rule does not find what it should.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import worked_layers
from rewrite import Report, Rules, apply_rules, get_report
from rewrite.backends import backend_for
from rewrite.backends.torch import torchvision_schemas
from rewrite.graph import Node

torchvision_schemas.declare()

import torchvision  # noqa: E402  (some builds need the schemas first)

IMAGE = (2, 3, 64, 64)


@dataclass(frozen=True)
class Worked:
    """One rule and where it is at home."""

    number: int
    rules: str
    network: str
    sites: tuple[int, ...]
    """of each clause"""
    shape: tuple[int, ...] = IMAGE
    example: bool = False
    """whether sizes follow from a run only, as they do behind layers of one's own"""
    modules: Mapping[str, object] = field(default_factory=lambda: {"my": worked_layers})
    training: bool = False


class Parallel(nn.Module):
    """Parallel convolutions of one value, and activations twice in a row: no network of torchvision has either."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"left": nn.Conv2d(8, 8, 3, padding=1), "right": nn.Conv2d(8, 8, 3, padding=1)})
            for _ in range(2)
        )
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, height, width)` -> `(batch, 10)`."""
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(self.act(block["left"](x) + block["right"](x)))
        return self.head(x.mean((2, 3)))


def network(name: str) -> nn.Module:
    """A network with first weights, in eval mode, its statistics those of some data."""
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    if name == "eva":
        from timm.models.eva import Eva

        made: nn.Module = Eva(img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=2, qkv_fused=False)
    elif name == "parallel":
        made = Parallel()
    elif name.startswith("timm:"):
        import timm

        made = timm.create_model(name.removeprefix("timm:"))
    else:
        quick = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        made = torchvision.models.get_model(name, weights=None, **quick)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    return made.eval()


LITERAL = "after Conv2d: insert BatchNorm2d; set prev.activation=identity"

WORKED = (
    Worked(1, LITERAL, "vgg16", (13,)),
    Worked(2, "after Conv2d:\n    insert BatchNorm2d\n    set prev.activation=identity", "resnet18", (20,)),
    Worked(3, "after Conv2d { insert BatchNorm2d; set prev.activation=identity }", "vgg16", (13,)),
    Worked(
        4,
        """rule bn "VGG16: BN behind every conv, activation behind the BN":
    after Conv2d in "features.**" where not has_next(BatchNorm2d):
        insert BatchNorm2d(eps=1e-3)
        move prev.activation after self
        set prev.bias=none
        expect 13 matches""",
        "vgg16",
        (13,),
    ),
    Worked(5, "param rate = 0.1\nafter ReLU: insert Dropout(rate)", "googlenet", (57,), (2, 3, 64, 64)),
    Worked(6, 'after nn.ReLU except "layer4.**": insert Dropout(0.1)', "resnet18", (13,)),
    Worked(7, "remove Dropout | Dropout2d", "vgg16", (2,)),
    Worked(8, "replace ReLU | ReLU6 with GELU", "mobilenet_v2", (35,)),
    Worked(9, "replace last Linear with Linear(out_features=10); expect output (_, 10)", "resnet18", (1,)),
    Worked(
        10,
        'replace "classifier" with Linear(out_features=256) -> ReLU -> Dropout(0.5) -> Linear(out_features=10)\n'
        "expect output (_, 10)",
        "vgg16",
        (1,),
    ),
    Worked(11, 'freeze any except "fc.**"', "resnet18", (40,)),
    Worked(12, 'freeze params "features.**"; unfreeze BatchNorm2d in "features.**"', "vgg16_bn", (45, 13)),
    Worked(13, 'reset Linear in "classifier.**" with kaiming_normal(nonlinearity="relu")', "vgg16", (3,)),
    Worked(
        14, 'wrap Linear in "**.attn.{q,v}_proj" with LoRA(rank=8, alpha=16); freeze any except LoRA', "eva", (4, 20)
    ),
    Worked(15, "fold BatchNorm2d into Conv2d; expect equivalent", "resnet18", (20,), example=True),
    Worked(16, "match Conv2d as c >> BatchNorm2d as b where not b.training:\n    fold b into c", "mobilenet_v2", (52,)),
    Worked(17, 'tap c4 = last ReLU in "layer3.**"', "resnet18", (1,)),
    Worked(
        18,
        "within BasicBlock | Bottleneck: after last BatchNorm2d: insert my.SEBlock(reduction=16)",
        "resnet18",
        (8,),
        example=True,
    ),
    Worked(19, "param rate = 0.1\nbetween BatchNorm2d and add: insert DropPath(rate)", "resnet18", (11,)),
    Worked(20, "before add@0: insert my.LayerScale(init=1e-4)", "resnet18", (8,), example=True),
    Worked(21, "before cat@* in InceptionA: insert BatchNorm2d", "inception_v3", (12,), (2, 3, 96, 96)),
    Worked(22, "before cat@3 in InceptionA: insert Conv2d(kernel_size=1)", "inception_v3", (3,), (2, 3, 96, 96)),
    Worked(23, "after cat: insert my.SEBlock(reduction=8)", "inception_v3", (15,), (2, 3, 96, 96), example=True),
    Worked(24, "match Conv2d >> BatchNorm2d as b >> ReLU as r: move b after r", "vgg16_bn", (13,)),
    Worked(
        25,
        "replace BatchNorm2d as b with GroupNorm(num_groups=min(32, b.num_features))",
        "resnet18",
        (20,),
    ),
    Worked(26, "at BatchNorm2d: set self.momentum=0.01, self.eps=1e-3", "resnet18", (20,)),
    Worked(
        27,
        """replace Conv2d[kernel_size==(3,3), groups==1, out_channels>=64] as c where my.prunable(c)
    with Conv2d(kernel_size=3, padding=1, groups=c.in_channels)
        -> Conv2d(out_channels=c.out_channels, kernel_size=1)""",
        "vgg16",
        (10,),
    ),
    Worked(
        28,
        """match any as x -> Conv2d as p -> add as s, x -> Conv2d as q -> s
    where p.kernel_size == q.kernel_size and p is not "stem.**":
    replace s with my.FusedAdd(p, q)""",
        "parallel",
        (2,),
        example=True,
    ),
    Worked(29, "after Conv2d -> BatchNorm2d? -> ReLU: insert my.Probe", "vgg16", (13,), example=True),
    Worked(
        30,
        "before first Conv2d: insert my.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
        "resnet18",
        (1,),
        example=True,
    ),
    Worked(31, "before add@*: insert my.FakeQuant(bits=8)", "resnet18", (16,), example=True),
    Worked(32, "repeat max 5: match ReLU >> ReLU as r: remove r", "parallel", (2,)),
    Worked(
        33,
        'within "encoder.**" { freeze any; unfreeze LayerNorm; expect any matches }',
        "vit_b_16",
        (74, 25),
        (2, 3, 224, 224),
    ),
)
"""the worked rules 1 to 33; those from 34 on are rule tests"""


def run(worked: Worked) -> tuple[nn.Module, nn.Module, Report]:
    """The network, what the rule makes of it, and the report; the result has been run once."""
    model = network(worked.network)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(worked.shape, generator=generator)
    result = apply_rules(
        model,
        Rules(worked.rules, f"rule {worked.number}"),
        example_inputs=image if worked.example else None,
        modules=worked.modules,
    )
    report = get_report(result)
    assert report is not None, "just made"
    with torch.no_grad():
        result(image)
    return model, result, report


def calls_of(model: nn.Module) -> list[Node]:
    """The innermost calls of a model, in order of execution."""
    return [node for node in backend_for(model).read(model).graph.nodes if not node.composite]


def around(model: nn.Module, path: str, wide: int = 2) -> list[str]:
    """The calls around the first one at a path, one line each."""
    nodes = calls_of(model)
    place = next((number for number, node in enumerate(nodes) if node.name == path), None)
    if place is None:
        place = next((number for number, node in enumerate(nodes) if node.name.startswith(path)), 0)
    return [
        f"{node.name} = {node.operation or node.spelling}({', '.join(source(o.value.producer) for o in node.inputs)})"
        for node in nodes[max(place - 1, 0) : place + wide + 1]
    ]


def source(node: Node | None) -> str:
    """Who made a value."""
    return node.name if node is not None else "input"


def main(argv: list[str] | None = None) -> int:
    """Prints every rule with what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int)
    wanted = parser.parse_args(argv).numbers
    wrong = 0
    for worked in WORKED:
        if wanted and worked.number not in wanted:
            continue
        model, result, report = run(worked)
        sites = tuple(len(clause.sites) for clause in report.clauses)
        verdict = "as it should be" if sites == worked.sites else f"EXPECTED {worked.sites}"
        wrong += sites != worked.sites
        print(
            f"-- {worked.number} on {worked.network}: {' + '.join(map(str, sites))} sites, {verdict}; {report.output}"
        )
        print("\n".join(f"   {line}" for line in worked.rules.splitlines()))
        first = report.clauses[0].sites[0].path.partition(" -> ")[0].partition("@")[0]
        print("   before:", *around(model, first), sep="\n      ")
        print("   after:", *around(result, first, 4), sep="\n      ")
    print(f"{wrong} wrong" if wrong else "all as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
