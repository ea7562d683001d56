"""`Operation`: one row of the vocabulary, all that rules and backends know about a kind of layer.

No framework is imported here: spellings and signatures are text, and each backend resolves its own column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache


class Shape(Enum):
    """How the shape of an operation's main output follows from its inputs."""

    SAME = "same"
    """that of the first input, axis by axis: activations, norms, dropouts"""
    CHANNELS = "channels"
    """batch and channels (axes 0 and 1) of the first input stay, the rest may change: pools, padding, up-sampling"""
    BROADCAST = "broadcast"
    """the inputs broadcast against each other: add, mul"""
    CAT = "cat"
    """the inputs joined along `dim`"""
    SPLIT = "split"
    """pieces of the input along `dim`"""
    OTHER = "other"
    """anything else; sizes that are known stand in `writes`"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a signature: its name, and its default unless it is required."""

    name: str
    required: bool = True
    default: object = None
    keyword_only: bool = False
    variadic: bool = False
    """takes any number of positional values (`*shape`); never required"""


@dataclass(frozen=True, slots=True)
class KerasSpelling:
    """One operation in Keras 3."""

    classes: tuple[str, ...] = ()
    """dotted names of the layer classes; the first is what a new layer is, and its bare name an alias in rules"""
    functions: tuple[str, ...] = ()
    """dotted names of the functions (`keras.ops.relu`)"""
    activations: tuple[str, ...] = ()
    """names among `keras.activations`, the one that a new layer uses first"""
    names: Mapping[str, str] = field(default_factory=dict)
    """argument of the row -> what Keras calls it, where that differs (`out_channels` -> `filters`)"""
    values: Mapping[str, object] = field(default_factory=dict)
    """word that an argument of the row may be -> what Keras' argument is then"""
    arguments: tuple[str, ...] = ()
    """the first parameters of the class, by Keras' names: arguments without a name in its spelling are these"""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation in every spelling. Rows are compared by identity: there is one of each.

    Axes count as in a tensor shape with the batch in front: 1 is the channel axis, -1 the last.
    """

    name: str
    """the name in rules: the class name of `torch.nn` where there is one, else the function's in lower case; a function
    that may be any of several layers is named by its spelling (`F.batch_norm`)"""
    family: str | None = None
    """`conv`, `linear`, `norm`, `activation`, `pool`, `dropout`, `merge`, or none of these"""
    signature: str | None = None
    """constructor parameters as they stand in the class's own `__init__`, without device and dtype;
    None: this operation cannot be inserted (a merge, an indexing)"""
    shape: Shape = Shape.OTHER
    reads: Mapping[str, int] = field(default_factory=dict)
    """constructor argument -> the axis of the first input whose size it must equal; -1 on `normalized_shape` means
    trailing axes"""
    writes: Mapping[str, int] = field(default_factory=dict)
    """constructor argument -> the axis of the main output whose size it sets"""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """constructor argument -> the argument whose value it takes when an `insert` leaves it out (`out_channels` ->
    `in_channels`)"""
    rank: int | None = None
    """number of axes of a batched input, where the operation fixes it (`Conv2d`: 4); what is said of axes is said of
    such an input"""
    ranks: tuple[int, ...] = ()
    """numbers of axes that the operation takes, where `rank` is None and they are few (`BatchNorm1d`: 2 or 3)"""
    commutative: bool = False
    statistics: bool = False
    """keeps moving statistics where it is built to (`BatchNorm2d`; `InstanceNorm2d` with `track_running_stats`)"""
    ports: tuple[str, ...] = ("input",)
    """names of the tensor inputs, in order; in a function they are its first parameters; a merge has none, its inputs
    go by number"""
    outputs: int = 1
    """how many values a call returns; of several, the first is the main one; 0: as many as it makes (`chunk`)"""
    module: str | None = None
    """PyTorch: dotted name of the module class"""
    also: tuple[str, ...] = ()
    """PyTorch: dotted names of classes elsewhere that do the same; their attributes may have other names"""
    akin: str | None = None
    """the operation that a rule may mean as well as this one, and does not: whoever names it is told of this one"""
    by_rank: Mapping[int, str] = field(default_factory=dict)
    """number of axes of the input -> the operation that is meant, for a name that leaves that open (`BatchNorm`); no
    call is of such an operation itself"""
    keras: KerasSpelling | None = None
    """Keras 3: its classes and functions; None: it has none"""
    wraps: bool = False
    """the layer is built around another one, which its constructor takes in front of what stands in `signature`"""
    functions: Mapping[str, str] = field(default_factory=dict)
    """PyTorch: dotted name of a function -> its parameters, tensors included"""
    methods: Mapping[str, str] = field(default_factory=dict)
    """PyTorch: name of a `torch.Tensor` method -> its parameters behind `self`"""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The constructor's parameters in order."""
        return parse_signature(self.signature) if self.signature is not None else ()

    @property
    def is_merge(self) -> bool:
        """Whether a call joins several values."""
        return self.family == "merge"


@cache
def parse_signature(text: str) -> tuple[Parameter, ...]:
    """`"p=0.5, inplace=False"` as parameters; defaults are Python literals, read with `ast.literal_eval`."""
    import ast  # only when a signature is asked for: starting the command line does not pay for it

    if not text.strip():
        return ()
    function = ast.parse(f"lambda {text}: 0", mode="eval").body
    assert isinstance(function, ast.Lambda)
    arguments = function.args
    positional = (*arguments.posonlyargs, *arguments.args)
    required = len(positional) - len(arguments.defaults)
    found = [Parameter(argument.arg) for argument in positional[:required]]
    found += [
        Parameter(argument.arg, False, ast.literal_eval(value))
        for argument, value in zip(positional[required:], arguments.defaults, strict=True)
    ]
    if arguments.vararg is not None:
        found.append(Parameter(arguments.vararg.arg, required=False, default=(), variadic=True))
    found += [
        Parameter(argument.arg, value is None, None if value is None else ast.literal_eval(value), keyword_only=True)
        for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return tuple(found)
