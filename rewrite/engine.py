"""The face of the package: rules checked, planned and applied."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rewrite import parser, syntax
from rewrite.resolver import resolve
from rewrite.rule import Program
from rewrite.source import Source

if TYPE_CHECKING:
    from rewrite.application import Application
    from rewrite.backends.backend import Probe
    from rewrite.explaining import Explained
    from rewrite.report import Report

Model = TypeVar("Model")


@dataclass(frozen=True)
class Rules:
    """Rule text, where a path to a file would stand.

    Example:
        >>> Rules("after ReLU: insert Dropout(0.1)").name
        '<rules>'

    """

    text: str
    name: str = "<rules>"
    """what diagnostics call it"""


@dataclass(frozen=True)
class Plan:
    """What an application would do."""

    report: Report

    def __str__(self) -> str:
        return str(self.report)


_reports: weakref.WeakKeyDictionary[Any, Report] = weakref.WeakKeyDictionary()


def check_rules(
    rules: str | os.PathLike[str] | Rules,
    *,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    allow_code: bool | None = None,
) -> Program:
    """Parses and resolves rules without a model; no framework is imported.

    Args:
        rules: path of a rule file, or `Rules(text)`.
        params: values for the `param`s of the file.
        modules: classes of the caller that the rules name.
        allow_code: whether a `use` may import Python, as in `apply_rules`; None imports nothing and takes every name
            of such a module on trust.

    Raises:
        RuleError: with every mistake in the text.
        SafetyError: the rules want to run Python, and `allow_code` is False.

    """
    return load_program(rules, params, modules, allow_code)[0]


def apply_rules(
    model: Model,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    seed: int = 0,
    name: str | None = None,
    allow_code: bool = False,
    strict: bool = False,
    verify: Literal["shapes", "run"] = "shapes",
) -> Model:
    """Applies rules to a model and returns the changed model; the given one stays as it was.

    The result has the class, the attributes and the `state_dict` keys of the given model, and new keys for new layers.
    No weight is copied: parameters and buffers that the rules do not change are the same tensors in both models, so
    training the one trains the other. Modules are not shared: mode, hooks and attributes of the two are apart.

    Args:
        model: a `torch.nn.Module` on any device, in either mode, or a `keras.Model` (which is copied, weights too). A
            compiled module, and one in `DataParallel`, is taken out of its wrapper, and the result is wrapped in the
            same way.
        rules: path of a rule file, or `Rules(text)`.
        example_inputs: arguments of one call: a tensor, a tuple of arguments, or a dict of keyword arguments. Not
            needed where sizes follow from the layers; with it, shapes are exact and the output is checked.
        params: values for the `param`s of the file.
        modules: classes (or functions that return a module) of your own, by the name that rules use; a module or a
            mapping, `{"my": layers}`, stands for all in it: `my.SEBlock`.
        seed: new weights depend on it, on the rule and on the site, and on nothing else; the global random generator
            is left as it was.
        name: what reports call the model; its class by default.
        allow_code: whether a `use` of the rules may import Python, which runs it.
        strict: whether matches that overlap are an error; else the first one counts and the report has the others.
        verify: `"run"` also runs both models on real numbers, on the example inputs or on what `probe` finds: in eval
            mode, and one step in training mode with new layers at rest. Where every action keeps the numbers, outputs,
            gradients and buffers must be the same; else the report says how far they are apart.

    Returns:
        A model of the same class. `get_report` tells what was done to it.

    Raises:
        RuleError: the text of the rules is wrong.
        SiteError: a site lacks what a rule needs to know, such as a size.
        PlanError: the rules do not fit this model: nothing matched, a shape would change, or a run shows other numbers.
        SafetyError: the rules want to run Python, and `allow_code` is not set.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> apply_rules(model, Rules("after Conv2d: insert BatchNorm2d"))
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (0_batchnorm2d): BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
          (1): ReLU()
        )

    """
    with _collector_paused():
        application = _application(
            model,
            rules,
            example_inputs,
            params,
            modules,
            seed,
            name,
            allow_code,
            strict,
            count_calls=False,
            verify=verify,
        )
        written, report = _in_wrappers(model, application)
    _reports[written] = report
    return written  # type: ignore[no-any-return]


def plan_rules(
    model: object,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    seed: int = 0,
    name: str | None = None,
    allow_code: bool = False,
    strict: bool = False,
    verify: Literal["shapes", "run"] = "shapes",
) -> Plan:
    """Says what `apply_rules` would do, with the same arguments and the same errors; nothing is changed.

    Returns:
        A plan; `plan.report` has each site, what it gets, and the totals before and after.

    """
    with _collector_paused():
        application = _application(
            model,
            rules,
            example_inputs,
            params,
            modules,
            seed,
            name,
            allow_code,
            strict,
            count_calls=True,
            verify=verify,
        )
        return Plan(application.run()[1])


def explain_rules(
    model: object,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    seed: int = 0,
    name: str | None = None,
    allow_code: bool = False,
    strict: bool = False,
) -> Explained:
    """Says for each clause which calls of a model match, and for the near misses which test fails first.

    Every clause is explained on the model as it stands when the clause begins; what stops a clause from being carried
    out is told, and the clauses behind it are explained on the model without it.

    Returns:
        The account; `str()` of it is what `rewrite explain` prints.

    """
    with _collector_paused():
        return _application(
            model, rules, example_inputs, params, modules, seed, name, allow_code, strict, count_calls=False
        ).explain()


def apply_with_report(
    model: Model,
    rules: str | os.PathLike[str] | Rules,
    *,
    example_inputs: Any = None,
    params: Mapping[str, object] | None = None,
    modules: Mapping[str, object] | None = None,
    seed: int = 0,
    name: str | None = None,
    allow_code: bool = False,
    strict: bool = False,
    verify: Literal["shapes", "run"] = "shapes",
) -> tuple[Model, Report]:
    """As `apply_rules`, with the report beside the model; all its calls are counted, whatever the rules are about."""
    with _collector_paused():
        application = _application(
            model,
            rules,
            example_inputs,
            params,
            modules,
            seed,
            name,
            allow_code,
            strict,
            count_calls=True,
            verify=verify,
        )
        written, report = _in_wrappers(model, application)
    _reports[written] = report
    return written, report


def probe(model: object, *, batch: int = 2) -> Probe:
    """Looks for arguments that a model takes, for common models of images, video, sound, text and vectors.

    They are guessed from the names of the arguments, the sizes that the model states, and its first layers; the model
    is tried on shapes alone, without computing anything, wherever that is possible. It is not changed.

    Args:
        model: what arguments are wanted for.
        batch: how many samples they hold, >= 1.

    Returns:
        `inputs` is what `apply_rules(example_inputs=...)` takes, or None; `tried` is what was tried before, and why
        the model does not take it.

    Example:
        >>> from torch import nn
        >>> found = probe(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))
        >>> found.inputs[0][0].shape
        torch.Size([2, 3, 64, 64])

    """
    from rewrite.backends import backend_for

    backend = backend_for(model)
    return backend.probe(backend.unwrap(model), batch)


def get_taps(model: object) -> Mapping[str, Any]:
    """The values that the taps of a model (`tap c4 = last ReLU in "layer3.**"`) saw in its last forward pass.

    Returns:
        Name of the tap -> the tensor, with its history, so that losses can be made of it. A tap that has seen nothing
        yet is left out.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> tapped = apply_rules(model, Rules("tap hidden = ReLU"))
        >>> _ = tapped(torch.zeros(1, 4))
        >>> get_taps(tapped)["hidden"].shape
        torch.Size([1, 8])

    """
    from rewrite.backends import backend_for

    return backend_for(model).taps(model)


def get_report(model: object) -> Report | None:
    """The report of the application that made `model`; None if none did in this process."""
    try:
        return _reports.get(model)
    except TypeError:  # no weak reference can point at it, so no application made it
        return None


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Reading a model makes many objects that all live until the end; looking for garbage among them is in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _in_wrappers(given: Any, application: Application) -> tuple[Any, Report]:
    """The changed model in the wrappers that the given one came in, and the report."""
    written, report = application.run()
    return (given if written is application.model else application.backend.wrap_like(given, written)), report


def _application(
    model: Any,
    rules: str | os.PathLike[str] | Rules,
    example_inputs: Any,
    params: Mapping[str, object] | None,
    modules: Mapping[str, object] | None,
    seed: int,
    name: str | None,
    allow_code: bool,
    strict: bool,
    *,
    count_calls: bool,
    verify: str = "shapes",
) -> Application:
    # Checking rules must not pay for what only a model needs.
    from rewrite.application import Application
    from rewrite.backends import backend_for, example_of

    if verify not in ("shapes", "run"):
        raise ValueError(f'verify={verify!r} is neither "shapes" nor "run"')
    backend = backend_for(model)
    model = backend.unwrap(model)
    program, externals = load_program(rules, params, modules, allow_code, backend.class_names(model))
    return Application(
        backend,
        model,
        program,
        example=example_of(example_inputs),
        modules=externals,
        seed=seed,
        name=name or type(model).__name__,
        count_calls=count_calls,
        strict=strict,
        by_run=verify == "run",
    )


def load_program(
    rules: str | os.PathLike[str] | Rules,
    params: Mapping[str, object] | None,
    modules: Mapping[str, object] | None,
    allow_code: bool | None,
    model_classes: Collection[str] | None = None,
) -> tuple[Program, dict[str, Any]]:
    """The program that rules mean, and what the names in it that are not of the vocabulary stand for.

    With `allow_code` None nothing is imported, and only the first is of use.
    """
    if isinstance(rules, Rules):
        source, folder = Source(rules.name, rules.text), None
    else:
        source = parser.read(rules)
        folder = os.path.dirname(source.name)
    file = parser.parse(source)
    if any(isinstance(line, syntax.Include) for line in file.lines):
        from rewrite import inclusion

        file = inclusion.expand(file, folder)
    if not modules and not any(isinstance(line, syntax.Use) for line in file.lines):
        return resolve(file, params=params, name=source.name, model_classes=model_classes), {}
    from rewrite import imports  # only rules with names of Python pay for looking them up

    if allow_code is None:
        externals = imports.spread(modules or {}) | dict.fromkeys(imports.use_names(file)[1])
    else:
        externals = imports.load(file, folder, modules or {}, allow_code)
    program = resolve(file, params=params, modules=externals, name=source.name, model_classes=model_classes)
    return program, externals
