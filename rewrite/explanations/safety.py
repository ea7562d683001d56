"""RW5xx: files and code that may not be read, run or written."""

from __future__ import annotations

from rewrite.explanations.explanation import explanation, python, rules, shell

SAFETY = {
    "RW501": explanation(
        """
        The rules name Python code with `use`, and whoever runs them has not allowed that. A rule file is data: one
        from a stranger can change a model, and nothing else. Importing a module runs whatever is in it, so that needs
        a permission from outside of the file: `--allow-code` on the command line, `allow_code=True` in Python. Give
        it only if you trust the module as you would trust a program. Without it, a class of your own can be handed
        over by name with `modules=`, and the rules need no `use`.
        """,
        rules('use "layers.py" as my\nafter ReLU: insert my.Scale(by=0.5)', "torchvision:vgg16"),
        python(
            """
            from torch import nn
            from rewrite import Rules, apply_rules


            class Scale(nn.Module):
                def __init__(self, by=1.0):
                    super().__init__()
                    self.by = by

                def forward(self, x):
                    return x * self.by


            model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
            apply_rules(model, Rules("after ReLU: insert Scale(by=0.5)"), modules={"Scale": Scale})
            """
        ),
    ),
    "RW502": explanation(
        """
        Reading this model file would run code that the file names, and it is refused before any of it runs. Most
        model files are pickles, and a pickle can call any function on your machine. So only tensors, plain data and
        the layer classes of torch and torchvision are read. If the file needs classes of yours, the message lists
        them; `--allow` with the full name lets one in, and imports the module that it comes from. Functions are never
        let in. The safest form of a model is its weights: `torchvision:NAME@weights.safetensors`.
        """,
        shell("rewrite show mine.pt"),
        shell("rewrite show mine.pt --allow mine.Net"),
    ),
    "RW503": explanation(
        """
        The output file is there already, and it is kept. A model may be the work of weeks, and a repeated command
        must not cost it. This is found before anything is read, so no time is lost. Write to another place, or say
        with `--force` that the old file may go; it stays whole until the new one is complete.
        """,
        shell("rewrite apply bn.rw net.pt -o net.pt"),
        shell("rewrite apply bn.rw net.pt -o new.pt"),
    ),
    "RW504": explanation(
        """
        The file or object is no model that can be read: it is missing, damaged, of another format, or holds weights
        where a whole model is needed, and the other way round. What a file is is decided by its content, never by its
        name. A compiled, scripted or wrapped model is refused as well, since no rule can reach the code inside; the
        message names the module to pass instead. Weights alone go together with a model that fits:
        `torchvision:NAME@FILE`.
        """,
        shell("rewrite show bn.rw"),
        shell("rewrite show net.pt"),
    ),
    "RW505": explanation(
        """
        A model can be named by what builds it, as in `torchvision:resnet18`, and there is no such builder here. The
        name may be misspelled, the family in front of the colon unknown, or torchvision not installed. The nearest
        names are suggested. A file is given by its path, without a family in front.
        """,
        shell("rewrite show torchvision:resnet19"),
        shell("rewrite show torchvision:resnet18"),
    ),
    "RW506": explanation(
        """
        The result cannot be written where and how it is asked for: the folder is missing or may not be written, the
        place is no plain file, the form is unknown, or the model holds something that this form does not. `.pt` and
        `.pth` hold the whole model, `.safetensors` its weights. Whatever can be checked beforehand is checked before
        the model is read. A new file takes its place in one step, so after this error the old one is still as it was.
        """,
        shell("rewrite apply bn.rw net.pt -o new.onnx"),
        shell("rewrite apply bn.rw net.pt -o new.pt"),
    ),
}
