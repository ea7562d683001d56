"""RW2xx: a site lacks what a rule needs to know about it."""

from __future__ import annotations

from rewrite.explanations.explanation import explanation, python, rules, shell

_SHUFFLENET = "torchvision:shufflenet_v2_x0_5"
_RESNET = "torchvision:resnet18"

SITES = {
    "RW201": explanation(
        """
        The path in quotes names no module and no call of this model. A path is written as `rewrite show` prints it,
        and every dot counts; `*` stands for one part, `**` for any number of parts, `{q,v}` for one of the
        alternatives. The message lists the nearest paths that the model has. A model that is wrapped in another one
        has its paths one level deeper, which `**.` in front allows for.
        """,
        rules('freeze "layer5.**"', _RESNET),
        rules('freeze "layer4.**"', _RESNET),
    ),
    "RW202": explanation(
        """
        The rule leaves out an argument that a new layer needs, and nothing at this place tells its value. Sizes such
        as `num_features` are read off the layers around the place, through operations that keep the shape. Behind a
        `view` or a `reshape`, or in a forward that could not be captured, they are not known. Either write the
        argument, or give an example input, from which the shapes of all values are known; no weight takes part in
        that.
        """,
        rules("after first view: insert LayerNorm", _SHUFFLENET),
        shell(f"rewrite plan -e 'after first view: insert LayerNorm' {_SHUFFLENET} --input 1x3x64x64"),
    ),
    "RW203": explanation(
        """
        Something has to be checked, and what the layers say of themselves is not enough for it: whether a new layer
        keeps the shape, whether the output has the promised shape, whether the model stays equivalent. The tool does
        not let that pass unchecked. Give an example input; the model then runs on shapes, or, where its forward
        depends on values, once on the input itself. The code also stands for an example input that the model itself
        does not take.
        """,
        python(
            """
            from torch import nn
            from rewrite import Rules, apply_rules


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv, self.act = nn.Conv2d(3, 8, 3), nn.GELU()

                def forward(self, x):
                    return self.act(self.conv(x).reshape(x.shape[0], -1))


            apply_rules(Net(), Rules("after GELU: insert Dropout(0.1); expect output (_, 288)"))
            """
        ),
        python(
            """
            import torch
            from torch import nn
            from rewrite import Rules, apply_rules


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv, self.act = nn.Conv2d(3, 8, 3), nn.GELU()

                def forward(self, x):
                    return self.act(self.conv(x).reshape(x.shape[0], -1))


            image = torch.zeros(1, 3, 8, 8)
            rules = Rules("after GELU: insert Dropout(0.1); expect output (_, 288)")
            apply_rules(Net(), rules, example_inputs=image)
            """
        ),
    ),
    "RW204": explanation(
        """
        The call takes several values (or none that the model computes), and the rule does not say which of them is
        meant. In front of an `add` there are two places, one per operand; and where an `add` is removed, one of the
        two values would have to go on. Name an input with `@`: `add@0`, `cat@*` for each of them,
        `MultiheadAttention@query`. The message lists the inputs of this call.
        """,
        rules("before add: insert Dropout(0.1)", _RESNET),
        rules("before add@1: insert Dropout(0.1)", _RESNET),
    ),
    "RW205": explanation(
        """
        The rule needs exactly one call or value, and there are several, or none. A `tap` gives one value a name;
        `next` is one call only where the value goes to one place; a call that returns several values has no single
        place behind it. Picking one of them silently would make the result depend on an order that nobody sees.
        Choose with `first`, `last`, `nth(2)` or a path, or select the other end: `before ...` or `between ... and
        ...`.
        """,
        rules('tap c4 = ReLU in "layer3.**"', _RESNET),
        rules('tap c4 = last ReLU in "layer3.**"', _RESNET),
    ),
    "RW206": explanation(
        """
        The forward of a module could not be captured as a graph, most often because it looks at the values of its
        input to decide what to do. Its layers can still be reached one by one, and so can functions that its code
        names, such as `F.relu(x)`. But what stands beside a call is not known there, so a rule that asks for
        neighbours, for one of several inputs, or for operators such as `+` cannot be answered. The tool says so
        instead of guessing. Leave the place out with `except`, or select the call in another way; where the reason
        is an argument that is not known, an example input helps.
        """,
        rules("after Conv2d where has_next(ReLU): insert BatchNorm2d", "torchvision:retinanet_resnet50_fpn"),
        rules(
            """
            after Conv2d in "head.**": insert BatchNorm2d
            """,
            "torchvision:retinanet_resnet50_fpn",
        ),
    ),
    "RW207": explanation(
        """
        This comes when the rewritten model is called, not when it is made. A forward was captured for one value of an
        argument that is no tensor, such as a flag, and is now called with another one. The original code may take
        another way for that value, which the rewritten forward does not have, so going on could compute the wrong
        thing without a word. Rewrite the model with an example input that uses the argument as you will use it.

        It comes as well when a plain attribute is set that the captured forward has read, such as `model.depth = 3`:
        the rewritten forward would not look at it. Set it in the model as it was, and rewrite that.
        """,
        python(
            """
            import torch
            from torch import nn
            from rewrite import Rules, apply_rules


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(4, 4)

                def forward(self, x, double=False):
                    y = torch.relu(self.fc(x))
                    return 2 * y if double else y


            model = apply_rules(Net(), Rules("after relu: insert Dropout(0.1)"))
            model(torch.zeros(1, 4), double=True)
            """
        ),
        python(
            """
            import torch
            from torch import nn
            from rewrite import Rules, apply_rules


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.fc = nn.Linear(4, 4)

                def forward(self, x, double=False):
                    y = torch.relu(self.fc(x))
                    return 2 * y if double else y


            inputs = {"x": torch.zeros(1, 4), "double": True}
            model = apply_rules(Net(), Rules("after relu: insert Dropout(0.1)"), example_inputs=inputs)
            model(torch.zeros(1, 4), double=True)
            """
        ),
    ),
}
