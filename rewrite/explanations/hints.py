"""RW4xx: warnings about what is done as it is written, and may not be meant so."""

from __future__ import annotations

from rewrite.explanations.explanation import branching, explanation, python, rules, shell

_VGG = "torchvision:vgg16"
_RESNET = "torchvision:resnet18"

HINTS = {
    "RW401": explanation(
        """
        This rule, word for word, was applied to this model before, and is passed over. A rewritten model remembers
        the rules that made it, also in a `.pt` file. So a script that runs twice does not put a second BatchNorm
        behind every convolution. Only rules that would add something again are passed over; what comes out the same
        each time is simply done. To apply the rule once more, start from the model as it was before, or write the
        rule differently.
        """,
        shell(
            """
            rewrite apply bn.rw net.pt -o once.pt
            rewrite apply bn.rw once.pt -o twice.pt
            """
        ),
        shell("rewrite apply bn.rw net.pt -o once.pt"),
    ),
    "RW402": explanation(
        """
        The rule takes the activation away that a module carries inside, and nothing puts one back. Without it two
        layers in a row are as good as one, so this is often a mistake: what was meant may have been to put a layer
        between the module's work and its activation. If the activation should go, nothing needs to be done. If it
        should only be another one, name that one.
        """,
        rules("at SqueezeExcitation: set self.activation=identity", "torchvision:mobilenet_v3_small"),
        rules("at SqueezeExcitation: set self.activation=GELU", "torchvision:mobilenet_v3_small"),
    ),
    "RW403": explanation(
        """
        A BatchNorm is inserted behind a layer that has a bias. The normalisation takes the mean away, and with it
        every constant that was added in front of it, so the bias has no effect any more. It costs a little memory and
        time and does no harm. To drop it, add `set prev.bias=none`.
        """,
        rules("after Conv2d: insert BatchNorm2d", _VGG),
        rules("after Conv2d: insert BatchNorm2d; set prev.bias=none", _VGG),
    ),
    "RW404": explanation(
        """
        An earlier rule of this file inserted a layer behind these calls, and this rule inserts another one behind the
        same calls. Each `after` is about the place right behind the call that it names, so the later layer comes to
        stand in front of the earlier one. Often the order of the text was meant. To get it, insert both in one rule,
        or select the layer that the earlier rule inserted.
        """,
        rules("after Conv2d: insert BatchNorm2d\nafter Conv2d: insert Dropout2d(0.1)", _VGG),
        rules("after Conv2d: insert BatchNorm2d -> Dropout2d(0.1)", _VGG),
    ),
    "RW405": explanation(
        """
        The rule names one exact spelling, such as `nn.ReLU`, and the model also has the operation in other spellings,
        which are left out. Many models mix them: DenseNet-121 has 120 modules of ReLU and one call of `F.relu`. The
        plain name, `ReLU`, is every spelling. If only the one spelling is meant, add `except F.relu`, and the warning
        is gone. The same warning names what stands in a forward that could not be captured, and cannot be reached
        there: operators, and functions that a local name stands for. And it names operations that are often meant
        along with the named one and are others: a `SeparableConv2d` of Keras is no `Conv2d`.
        """,
        rules("after nn.ReLU: insert Dropout(0.1)", "torchvision:densenet121"),
        rules("after ReLU: insert Dropout(0.1)", "torchvision:densenet121"),
    ),
    "RW406": explanation(
        """
        `freeze params` stops the parameters of a normalisation from learning, but its moving mean and variance still
        follow every batch in training mode. So the outputs of the frozen part drift although no parameter changes,
        which surprises many people. `freeze` without `params` stops both, and stays so through `model.train()`. If
        the statistics should move, nothing needs to be done.
        """,
        rules('freeze params "layer1.**"', _RESNET),
        rules('freeze "layer1.**"', _RESNET),
    ),
    "RW407": explanation(
        """
        The rule found nothing, and would have found something in the model as it was given: earlier rules of the same
        file have removed or replaced it. It is a warning only because the rule says `expect any matches`; otherwise
        it is an error (RW301) with the same note. Rules are carried out in the order of the file, and each one sees
        what those before it left. Change the order, or drop the rule.
        """,
        rules("remove Dropout\nreplace Dropout with Dropout2d(0.1); expect any matches", _VGG),
        rules("replace Dropout with Dropout2d(0.1)", _VGG),
    ),
    "RW408": explanation(
        """
        The rules insert layers whose weights are drawn at random in the middle of the model. What stands behind them
        was trained without them, so until the model is trained further it gives other results than before, most
        likely worse ones. This is often what you want; it is said so that nobody evaluates or ships the model by
        mistake. Train it. To keep what it has learnt, freeze the rest first, since new layers are not frozen by an
        earlier `freeze`; or begin gently, with `wrap ... with LoRA`, which changes nothing before it is trained.
        """,
        rules('after first ReLU in "classifier.**": insert Linear', _VGG),
        rules('freeze any\nafter first ReLU in "classifier.**": insert Linear', _VGG),
    ),
    "RW409": explanation(
        """
        A `tap` keeps a value so that you can look at it, and the next operation writes its result over that very
        value, as `ReLU(inplace=True)` does. What you see is then what the operation made of it, not what the tapped
        call gave. Make the operation work out of place; the results stay the same.
        """,
        rules("tap stem = first Conv2d", _VGG),
        rules('at "features.1": set self.inplace=false\ntap stem = first Conv2d', _VGG),
    ),
    "RW410": explanation(
        """
        A BatchNorm or InstanceNorm is inserted where a map has shrunk to a single place, as behind the convolutions of
        a squeeze-and-excite block. It takes its mean over the samples and the places of each channel. With one place
        there are as many values as samples, so a batch of one sample is refused in training mode, and an InstanceNorm
        always gives zero. Leave such places out, or take a GroupNorm there, which goes over several channels.
        """,
        rules("after Conv2d: insert BatchNorm2d", "torchvision:mobilenet_v3_small"),
        rules("after Conv2d except SqueezeExcitation: insert BatchNorm2d", "torchvision:mobilenet_v3_small"),
    ),
    "RW411": explanation(
        """
        A Keras model is made again of its inputs and outputs. The constructor of this class takes other arguments and
        makes the whole network of them, so it cannot make a changed one, and neither can a file that names the class.
        The result is what Keras makes of inputs and outputs: it has the layers, the weights and all names, and is
        saved, loaded and trained without the class. What the class adds, methods such as `generate` and attributes, is
        not in it. A class that trains or predicts by a step of its own is refused (RW320). Let the constructor take
        what `keras.Model` takes and hand it on, and the class is kept.
        """,
        python(
            """
            import keras
            from rewrite import Rules, apply_rules, get_report


            class Net(keras.Model):
                def __init__(self, units):
                    x = keras.Input((4,))
                    super().__init__(x, keras.layers.Dense(units, activation="relu")(x))


            report = get_report(apply_rules(Net(8), Rules("after ReLU: insert Dropout(0.1)")))
            """
        ),
        python(
            """
            import keras
            from rewrite import Rules, apply_rules, get_report


            class Net(keras.Model):
                @classmethod
                def of(cls, units):
                    x = keras.Input((4,))
                    return cls(x, keras.layers.Dense(units, activation="relu")(x))


            report = get_report(apply_rules(Net.of(8), Rules("after ReLU: insert Dropout(0.1)")))
            """
        ),
    ),
    "RW412": explanation(
        """
        An example input was given, the rewritten model ran on it, and layers that the rules inserted were not called:
        they stand in a part of the model that this input does not reach, such as another branch of a forward that
        looks at its input. They are there for inputs that do, and their shapes are known without a run, so nothing is
        wrong; but the run has not tried them. Give an example input that goes through them, or leave the place out
        with `except`.
        """,
        branching(
            """
            rules = Rules("after Linear: insert Dropout(0.1)")
            report = get_report(apply_rules(Net(), rules, example_inputs=torch.ones(1, 4)))
            """
        ),
        branching(
            """
            rules = Rules('after Linear except "low": insert Dropout(0.1)')
            report = get_report(apply_rules(Net(), rules, example_inputs=torch.ones(1, 4)))
            """
        ),
    ),
}
