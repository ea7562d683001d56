"""RW3xx: the rules and the model do not fit together."""

from __future__ import annotations

from rewrite.explanations.explanation import branching, explanation, python, rules, shell

_VGG = "torchvision:vgg16"
_RESNET = "torchvision:resnet18"

PLANS = {
    "RW301": explanation(
        """
        The rule found nothing in this model. That is an error, because a rule that silently does nothing is the most
        common way in which such a tool disappoints. The message tells how far the search came: how many calls are
        what the rule names, how many of those fail the scope or the condition, and which names or places would have
        fitted. If nothing is fine, for a rule that is applied to many different models, say so with `expect any
        matches`.
        """,
        rules('after Conv2d in "layer1.**": insert BatchNorm2d', _VGG),
        rules('after Conv2d in "features.**": insert BatchNorm2d', _VGG),
    ),
    "RW302": explanation(
        """
        The rule lists several alternatives with `|`, and one of them found nothing in this model while others did.
        The rule is carried out, so this is a warning: the alternative may be there for other models, or it may be
        misspelled. Drop it if it is not needed.
        """,
        rules("remove Dropout | Dropout2d", _VGG),
        rules("remove Dropout", _VGG),
    ),
    "RW303": explanation(
        """
        The rule says how many places it should find, with `expect ... matches`, and it found another number. So the
        model is not the one that the rule was written for, or the selector is wider or narrower than you think. The
        message lists the places that were found. Change the selector, or the number if it is out of date: `expect
        3..` is "at least 3", `expect 3..5` is a range, `expect any` allows everything.
        """,
        rules("after Conv2d: insert BatchNorm2d; expect 12 matches", _VGG),
        rules("after Conv2d: insert BatchNorm2d; expect 13 matches", _VGG),
    ),
    "RW310": explanation(
        """
        At this place a value of one shape goes in, and another shape would come out, or the new layer does not take
        the value at all. What stands behind would then fail, or compute something else without a word, so a rule must
        keep the shape at its place. Choose arguments that do: for a convolution, `padding = (kernel_size - 1) / 2`.
        Where the shape is meant to change and what follows copes with it, give an example input or promise the result
        with `expect output`: then the output of the whole model is what is checked.
        """,
        rules("after first Conv2d: insert Conv2d(kernel_size=3)", _VGG),
        rules("after first Conv2d: insert Conv2d(kernel_size=3, padding=1)", _VGG),
    ),
    "RW311": explanation(
        """
        The output of the model has another shape, type or structure than before, or than the file promises with
        `expect output`. Whoever uses the model relies on its output, so a change of it has to be written down in the
        rules, where a reader sees it. If the change is meant, promise the new shape, with `_` for any size. The code
        also stands for a rewritten model that does not run any more on the example input.
        """,
        rules('replace "fc" with Linear(out_features=10); expect output (_, 100)', _RESNET),
        rules('replace "fc" with Linear(out_features=10); expect output (_, 10)', _RESNET),
    ),
    "RW312": explanation(
        """
        The rule would take away or change a value that is also used outside of what the pattern matched. Folding a
        BatchNorm into a convolution, for instance, changes what the convolution gives, and a second user of it would
        get wrong numbers. `->` in a pattern allows other users; `>>` matches only where the value goes into the next
        call and nowhere else. So with `>>` the rule skips these places and does the others.
        """,
        python(
            """
            from torch import nn
            from rewrite import Rules, apply_rules


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

                def forward(self, x):
                    y = self.conv(x)
                    return self.bn(y) + y


            apply_rules(Net().eval(), Rules("match Conv2d as c -> BatchNorm2d as b: fold b into c"))
            """
        ),
        rules("match Conv2d as c >> BatchNorm2d as b where not b.training: fold b into c"),
    ),
    "RW313": explanation(
        """
        A layer, or a whole block, is called at several places of the model, and the rule matches only some of these
        calls. What belongs to the layer (its weights, its attributes, its code) holds for all of its calls, so a
        change for one of them would change the others as well. Layers without weights are copied where that helps;
        weights are never doubled without being asked, since calls that trained together would drift apart. Match all
        calls of the layer, or name it by its path.
        """,
        rules('at first ReLU in "layer1.0": set self.inplace=false', _RESNET),
        rules('at ReLU in "layer1.0": set self.inplace=false', _RESNET),
    ),
    "RW314": explanation(
        """
        Two matches of one rule want to take away or move the same call, or one takes away what the other needs. Both
        cannot be done. The match that comes first in the order of execution is carried out, the other one is left out
        and named here. Inserting never conflicts, only removing, replacing, folding and moving do. Put `repeat:`
        around the rule if the others should have their turn afterwards, or make the pattern smaller. Under `--strict`
        this is an error.
        """,
        rules("match Conv2d -> ReLU as r -> Conv2d -> ReLU as s: remove r; remove s", _VGG),
        rules("match Conv2d -> ReLU as r -> Conv2d: remove r", _VGG),
    ),
    "RW315": explanation(
        """
        After this edit a value would be needed to compute itself. That happens when a call is moved next to itself,
        or when a call is replaced by one that takes a value which is computed from it, or a capture that is not
        there. No order of execution exists then. Move the call to a place that does not depend on it, and give a
        replacement only values from in front of what it replaces.
        """,
        rules("match BatchNorm2d as b -> ReLU: move b after b", _RESNET),
        rules("match BatchNorm2d as b -> ReLU as r: move b after r", _RESNET),
    ),
    "RW316": explanation(
        """
        The rules in a `repeat` are applied again and again until they change nothing, and here the last round that is
        allowed was not the end. A `repeat` should make the model smaller or simpler each time, as one that removes
        the second of two equal layers does. A rule that makes what it looks for never comes to rest. If the rule is
        fine and the model only needs more rounds, allow more with `repeat max 50:`.
        """,
        rules("repeat max 2: after last ReLU: insert ReLU", _VGG),
        rules("after last ReLU: insert ReLU", _VGG),
    ),
    "RW317": explanation(
        """
        The file promises with `expect equivalent` that the model computes the same numbers as before, and it does
        not. Both models ran on the example input in eval mode, and the message shows the largest difference beside
        what rounding may account for at this size and type. Some actions are equivalent by what they are, such as
        `fold`, `tap` and inserting a dropout; swapping an activation for another one is not. If the difference is
        meant, drop the promise.
        """,
        shell(f"rewrite plan -e 'replace ReLU with GELU; expect equivalent' {_RESNET} --input 1x3x64x64"),
        shell(f"rewrite plan -e 'after ReLU: insert Identity; expect equivalent' {_RESNET} --input 1x3x64x64"),
    ),
    "RW318": explanation(
        """
        A normalisation can be folded into the layer next to it only if its scale and shift are fixed numbers. In
        training mode they are computed from each batch, and a normalisation that keeps no moving statistics does that
        in eval mode as well. Folded weights would then give other results than the model has now. Put the model in
        eval mode first, or choose only those that are, with `where not b.training`; what keeps no statistics is left
        out with `except`.
        """,
        python(
            """
            from torch import nn
            from rewrite import Rules, apply_rules

            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            apply_rules(model, Rules("match Conv2d as c >> BatchNorm2d as b: fold b into c"))
            """
        ),
        python(
            """
            from torch import nn
            from rewrite import Rules, apply_rules

            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
            apply_rules(model, Rules("match Conv2d as c >> BatchNorm2d as b: fold b into c"))
            """
        ),
    ),
    "RW319": explanation(
        """
        The rewritten model ran on the example input, and a layer that the rules inserted was not called. It stands in
        a part of the model that this input does not reach, such as another branch of a forward that looks at its
        input, and without a run nothing tells that the shapes there stay what they are: so the check of the output
        says nothing about that layer. Leave the place out with `except`, or give an example input that goes through
        it. Where the shapes are sure to stay, this is only a warning (RW412).
        """,
        branching(
            """
            apply_rules(Net(), Rules('after "low": insert Linear(4, 6)'), example_inputs=torch.ones(1, 4))
            """
        ),
        branching(
            """
            apply_rules(Net(), Rules('after "low": insert Linear(4, 4)'), example_inputs=torch.ones(1, 4))
            """
        ),
    ),
    "RW320": explanation(
        """
        What the rule asks for cannot be done to this layer, and the message says why: a module without a
        `reset_parameters` of its own does not tell how its weights begin, a function is no layer that could be
        wrapped, an operation has no weights that could take a normalisation over, a name cannot be written into a
        generated forward. These are limits of the layer, not of the place. The line of help names the way round,
        where there is one.
        """,
        rules("reset CNBlock", "torchvision:convnext_tiny"),
        rules("reset CNBlock with normal(std=0.02)", "torchvision:convnext_tiny"),
    ),
    "RW321": explanation(
        """
        The search for this pattern was stopped, because it takes too many steps. A pattern whose calls are all `any`
        fits almost everywhere at first, and the number of combinations grows with each further call. Name operations
        or families instead of `any`, give the inputs of a merge (`add@1`), or say with `in` where to look. The limit
        grows with the model, and patterns that name what they look for stay far below it.
        """,
        rules(
            """
            match any as a -> any as b, any as c -> b, any as d -> b, any as e -> b, any as f -> b, any as g -> b:
                remove a
            """,
            "torchvision:densenet121",
        ),
        rules("match BatchNorm2d as b -> ReLU -> Conv2d[kernel_size==1]: remove b", "torchvision:densenet121"),
    ),
    "RW322": explanation(
        """
        A `test` in the rule file does not hold: the rule made something else of the little model than `want` says,
        changed it where the test says `unchanged`, or found another number of places. The message shows what was
        wanted and what came out. Either the rule or the test is wrong. A test of a rule that should do nothing
        somewhere is as useful as one of a rule that should do something.
        """,
        rules(
            """
            rule bn:
                after Conv2d: insert BatchNorm2d

            test bn "stands between convolution and activation":
                given x -> Conv2d(3, 8, 3) -> ReLU -> y
                want x -> Conv2d(3, 8, 3) -> ReLU -> BatchNorm2d(8) -> y
            """
        ),
        rules(
            """
            rule bn:
                after Conv2d: insert BatchNorm2d

            test bn "stands between convolution and activation":
                given x -> Conv2d(3, 8, 3) -> ReLU -> y
                want x -> Conv2d(3, 8, 3) -> BatchNorm2d(8) -> ReLU -> y
            """
        ),
    ),
}
