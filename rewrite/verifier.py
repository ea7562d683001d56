"""The output contract: shapes, dtypes and structure stay what they were, unless the file says what they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewrite.backends.backend import Backend, Difference, Example, Ran, Reading
from rewrite.errors import EXAMPLE_HELP, Diagnostic, RewriteError, SiteError, raisable
from rewrite.inference import Inference
from rewrite.rule import OutputPromise
from rewrite.source import Span


def verify(
    backend: Backend,
    model: Any,
    written: Any,
    after: Reading,
    *,
    example: Example | None,
    promise: OutputPromise | None,
    open_questions: Sequence[Diagnostic],
    new_layers: Mapping[str, str | None],
    equivalent: Span | None = None,
    preserved: bool = False,
) -> tuple[str, tuple[Diagnostic, ...]]:
    """Checks a written model against what it may change; returns what is known of the output, in words, and warnings.

    Args:
        backend: that of the models.
        model: as it was given.
        written: as it became.
        after: the reading of `written`.
        example: arguments to run both on, by shapes; without it only what follows from the edits is known.
        promise: what the file says of the output.
        open_questions: sites whose shape changes or is not known; each would be an error by itself.
        new_layers: path of each inserted layer -> path of a module whose call leads to it; None: no call tells that.
        equivalent: where the file promises that the numbers stay the same; None: it does not.
        preserved: whether every action keeps the numbers by what it is.

    Raises:
        PlanError: the output differs (RW311), an inserted layer did not run and has to (RW319), a shape changes
            (RW310), the numbers are not the same (RW317).
        SiteError: nothing tells the shape (RW203).

    """
    known, warnings = _check_shapes(
        backend,
        model,
        written,
        after,
        example=example,
        promise=promise,
        open_questions=open_questions,
        new_layers=new_layers,
    )
    if equivalent is None:
        return known, warnings
    same = _check_equivalent(backend, model, written, example, equivalent, preserved=preserved)
    return f"{known}; {same}", warnings


def _check_equivalent(
    backend: Backend, model: Any, written: Any, example: Example | None, span: Span, *, preserved: bool
) -> str:
    """Holds `expect equivalent`: by a run on the example input, else by what the actions are."""
    if example is None:
        if preserved:
            return "equivalent: every action keeps the numbers in eval mode"
        raise Diagnostic(
            "RW203",
            "whether the model stays equivalent can only be told by a run",
            span,
            notes=("not every action of the file keeps the numbers by itself",),
            help=EXAMPLE_HELP,
        ).error()
    found = backend.compare(model, written, example)
    if found.is_rounding:
        return f"equivalent: the largest difference is {found.error:.3g} on the example input, in eval mode"
    where = f" at {found.place}" if found.place else ""
    why = found.reason or f"its outputs differ by up to {found.error:.3g}"
    raise Diagnostic(
        "RW317",
        f"the rewritten model is not equivalent: {why}{where}",
        span,
        notes=(f"rounding explains {found.allowed:.3g} there; both were run in eval mode",) if not found.reason else (),
        help="drop the promise if the difference is meant",
    ).error()


def try_out(
    backend: Backend,
    model: Any,
    written: Any,
    example: Example,
    *,
    preserved: bool,
    preserved_training: bool,
) -> tuple[str, ...]:
    """Runs both models on real numbers, in eval and in training mode; what was run and found, a line for each mode.

    Args:
        backend: that of the models.
        model: as it was given.
        written: as it became.
        example: arguments to run both on.
        preserved: whether every action keeps the numbers in eval mode by what it is, so that they must be the same.
        preserved_training: the same in training mode, new layers aside.

    Raises:
        PlanError: numbers that must be the same are not, or only the given model runs (RW317).
        SiteError: the given model does not run in eval mode, or has no numbers (RW203).

    """
    return (
        _try_mode(backend.compare, model, written, example, "eval mode", must_keep=preserved),
        _try_mode(backend.compare_training, model, written, example, "training mode", must_keep=preserved_training),
    )


def _try_mode(
    compare: Callable[[Any, Any, Example], Difference],
    model: Any,
    written: Any,
    example: Example,
    mode: str,
    *,
    must_keep: bool,
) -> str:
    try:
        found = compare(model, written, example)
    except SiteError as problem:
        why = problem.diagnostics[0].message
        try:
            compare(model, model, example)
        except SiteError:
            if mode == "eval mode":
                raise
            return f"{mode}: not compared, {why}"
        raise Diagnostic(
            "RW317", f"the rewritten model does not run in {mode}, and the given one does", notes=(why,)
        ).error() from problem
    where = f" at {found.place}" if found.place else ""
    what = "outputs" if mode == "eval mode" else "outputs, gradients and buffers of one step"
    if not must_keep:
        apart = f": {found.reason}" if found.reason else f" by up to {found.error:.3g}"
        return f"{mode}: runs; the rules may change numbers, and {what} differ{apart}{where}"
    if found.is_rounding:
        return f"{mode}: {what} are the same; the largest difference is {found.error:.3g}"
    raise Diagnostic(
        "RW317",
        f"the rewritten model is not equivalent in {mode}: {found.reason or f'it is off by {found.error:.3g}'}{where}",
        notes=("every action of the file keeps the numbers by what it is", f"rounding explains {found.allowed:.3g}"),
        help="this is a mistake of this tool, or the model does not do the same twice: please report it",
    ).error()


def _check_shapes(
    backend: Backend,
    model: Any,
    written: Any,
    after: Reading,
    *,
    example: Example | None,
    promise: OutputPromise | None,
    open_questions: Sequence[Diagnostic],
    new_layers: Mapping[str, str | None],
) -> tuple[str, tuple[Diagnostic, ...]]:
    """Shapes, dtypes and structure of the output; what is known of them, in words, and warnings."""
    if example is not None:
        was = backend.run(model, example)
        try:
            now = backend.run(written, example)
        except RewriteError as problem:
            if problem.code != "RW203":
                raise
            raise _stopped_running(problem, open_questions) from problem
        made = {path: way for path, way in new_layers.items() if path in after.layers.layers}
        warnings = _check_ran(was, now, made, open_questions)
        if promise is not None:
            return _check_promise(promise, now), warnings
        if (was.structure, was.leaves) != (now.structure, now.leaves):
            raise Diagnostic(
                "RW311",
                "the output of the model changes",
                notes=(f"it was {shown(was)}", f"it becomes {shown(now)}"),
                help=f"if that is meant, say it in the file: `expect output {_promised(now)}`",
            ).error()
        return f"unchanged: {shown(now)}, checked by a run on shapes", warnings
    if promise is not None:
        return _promise_by_inference(promise, after), ()
    if open_questions:
        raise raisable(open_questions)
    return "unchanged: every edit keeps the shape at its site", ()


def _stopped_running(problem: RewriteError, open_questions: Sequence[Diagnostic]) -> RewriteError:
    """The given model runs and the rewritten one does not: the sites in question are the reason, if there are any."""
    if open_questions:
        return raisable(open_questions)
    return Diagnostic(
        "RW311",
        "the rewritten model does not run on the example input, which the given model takes",
        notes=(problem.diagnostics[0].message,),
        help="`rewrite plan` shows what each site gets",
    ).error()


def _check_ran(
    was: Ran, now: Ran, new_layers: Mapping[str, str | None], open_questions: Sequence[Diagnostic]
) -> tuple[Diagnostic, ...]:
    """A warning for inserted layers that this input does not come to.

    Raises:
        PlanError: it comes to what they stand at, or their shapes are not known without a run (RW319).

    """
    idle = [path for path in new_layers if not now.calls.get(path)]
    if not idle:
        return ()
    what = "1 inserted layer" if len(idle) == 1 else f"{len(idle)} inserted layers"
    message = f"{what} did not run on the example input"
    shown_paths = tuple(f"`{path}`" for path in idle[:8])
    for path in idle:
        way = new_layers[path]
        if way is not None and way != path and (was.calls.get(way) or now.calls.get(way)):
            raise Diagnostic(
                "RW319",
                message,
                notes=(*shown_paths, f"`{way}` did, which leads to `{path}`"),
                help="this is a mistake of this tool: please report it; or leave the place out with `except`",
            ).error()
    if open_questions:
        raise Diagnostic(
            "RW319",
            message,
            notes=(*shown_paths, *dict.fromkeys(f"without a run: {one.message}" for one in open_questions)),
            help="give an example input that leads there, or leave the place out with `except`",
        ).error()
    help_text = "the shapes there are known without a run; an example input that leads there would try them out as well"
    past = f"{message}, which leads past {'it' if len(idle) == 1 else 'them'}"
    return (Diagnostic("RW412", past, notes=shown_paths, help=help_text),)


def _check_promise(promise: OutputPromise, now: Ran) -> str:
    tensors = [leaf for leaf in now.leaves if isinstance(leaf, tuple)]
    shape = tensors[0][0] if tensors else ()
    if not fits(promise.shape, shape):
        raise _broken(promise, f"it becomes {shown(now)}").error()
    return f"{written_shape(promise.shape)} as promised: {shown(now)}, checked by a run on shapes"


def _promise_by_inference(promise: OutputPromise, after: Reading) -> str:
    """Holds the promise against the sizes that the layers state."""
    graph = after.graph
    if not graph.outputs:
        raise Diagnostic(
            "RW203",
            "the shape of the output is not known, so the promise cannot be checked",
            promise.span,
            help=EXAMPLE_HELP,
        ).error()
    found = Inference(graph).type_of(graph.outputs[0])
    if found.rank is not None and found.rank != len(promise.shape):
        raise _broken(promise, f"it has {found.rank} axes").error()
    proven = 0
    for axis, size in enumerate(promise.shape):
        if size is None:
            continue
        if found.shape is not None:
            known = found.shape[axis]
        else:
            known = found.size(axis - len(promise.shape)) if axis == len(promise.shape) - 1 else found.size(axis)
        if known is None:
            raise Diagnostic(
                "RW203",
                f"axis {axis} of the output is promised to be {size}, and nothing tells its size",
                promise.span,
                help=EXAMPLE_HELP,
            ).error()
        if known != size:
            raise _broken(promise, f"axis {axis} becomes {known}").error()
        proven += 1
    return f"{written_shape(promise.shape)} as promised: {proven} of its sizes follow from the layers"


def _broken(promise: OutputPromise, fact: str) -> Diagnostic:
    return Diagnostic(
        "RW311",
        f"the output is not {written_shape(promise.shape)}",
        promise.span,
        notes=(fact,),
        help="change the rule or the promise",
    )


def fits(promise: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether a shape is the promised one; None stands for any size."""
    return len(promise) == len(shape) and all(p is None or p == s for p, s in zip(promise, shape, strict=True))


def written_shape(shape: Sequence[int | None]) -> str:
    """A shape as the language writes it: `(_, 10)`."""
    return f"({', '.join('_' if size is None else str(size) for size in shape)}{',' if len(shape) == 1 else ''})"


def _promised(ran: Ran) -> str:
    """The shape of an output as a promise that holds for any size of the batch."""
    shape = next((leaf[0] for leaf in ran.leaves if isinstance(leaf, tuple)), ())
    return written_shape((None, *shape[1:]))


def shown(ran: Ran) -> str:
    """An output in words."""
    texts = [f"{leaf[0]} {leaf[1]}" if isinstance(leaf, tuple) else leaf for leaf in ran.leaves]
    return ", ".join(texts[:6]) + (f", and {len(texts) - 6} more" if len(texts) > 6 else "")
