"""Wrong rewrites, seeded into our own writer one at a time: each must be caught by a check that exists anyway.

A fault is a patch of the backend. The battery is a list of tests of the other files: what really runs by the oracle,
outputs, keys, ties, modes, statistics, gradients, hooks, copies and pickles. Without a fault all of it passes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import test_code as code
import test_edits
import test_field_branches as branches
import test_field_dataflow as dataflow
import test_field_modes as modes
import test_field_modules as modules
import test_field_selection as selection
import test_field_tools as tools
import test_folding
import test_migration as migration
import test_own_layers
import test_traps as traps
import torch
from field import conv, image, rewritten
from models import MODELS
from torch import fx, nn

from rewrite.backends.torch import (
    code_calls,
    code_changes,
    folding,
    generated,
    insertion,
    layers,
    moving,
    own_layers,
    removal,
    replacement,
    spellings,
    updates,
    writer,
    written,
)
from rewrite.backends.torch import draft as drafts
from rewrite.backends.torch import modules as module_facts
from rewrite.backends.torch.backend import TorchBackend
from rewrite.backends.torch.calls import occurrences
from rewrite.backends.torch.recipes import Recipe
from rewrite.edit import Insert, Replace, Update

Check = Callable[[], object]


def on(test: Callable[..., object], *arguments: Any) -> Check:
    @functools.wraps(test)
    def check() -> None:
        test(*arguments)

    return check


def dropout_behind(model: str, operation: str) -> Check:
    """Counts, keys, outputs, gradients, copies, and a second application: all of `contract.hold`."""
    return on(traps.test_dropout_behind, MODELS[model], operation)


def check_arguments_of_new_layers() -> None:
    result = rewritten(nn.Sequential(conv(), nn.ReLU()), "after Conv2d: insert BatchNorm2d(eps=0.5, momentum=0.3)")
    assert (result[1].eps, result[1].momentum) == (0.5, 0.3)
    result = rewritten(nn.Sequential(nn.Linear(4, 4)), "after Linear: insert Linear")
    assert result[1].bias is not None


def check_weights_drawn_anew() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    model(image() + 3)
    result = rewritten(model, "reset any")
    assert not result[0].running_mean.any()
    assert model[0].running_mean.any()
    assert not torch.equal(result[1].weight, result[2].weight)


def check_weights_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    result = rewritten(model, "replace Linear with Linear(out_features=4)")
    assert torch.equal(result[0].weight, model[0].weight)


def check_folds_in_a_model() -> None:
    for make in (conv, lambda: nn.ConvTranspose2d(4, 4, 3)):
        model = nn.Sequential(make(), nn.BatchNorm2d(4), nn.ReLU())
        for _ in range(3):
            model(image() * 2 + 1)
        with torch.no_grad():
            model[1].weight.normal_()
            model[1].bias.normal_()
        result, x = rewritten(model.eval(), "fold BatchNorm2d into conv"), image()
        torch.testing.assert_close(result(x), model(x))


BATTERY: tuple[Check, ...] = (
    dropout_behind("residual", "Conv2d"),
    dropout_behind("nested_sequential", "Conv2d"),
    dropout_behind("same_value_twice", "Conv2d"),
    dropout_behind("ignored_in_place_result", "Conv2d"),
    dropout_behind("two_paths", "Conv2d"),
    dropout_behind("untraceable", "ReLU"),
    on(traps.test_another_activation, MODELS["chain"]),
    traps.test_a_shared_layer_is_two_sites,
    traps.test_tied_weights_stay_tied,
    traps.test_a_frozen_tie_is_frozen_on_both_sides,
    traps.test_an_auxiliary_head_is_edited_for_training,
    on(traps.test_an_encoder_layer_means_the_same_on_either_path, False),
    selection.test_every_spelling_is_one_operation,
    dataflow.test_one_value_at_both_operands,
    dataflow.test_behind_a_producer_for_all_and_in_front_of_one_consumer,
    dataflow.test_in_front_of_the_first_layer_and_behind_the_last,
    dataflow.test_branches_of_different_width_of_which_some_match,
    dataflow.test_what_cannot_be_removed,
    dataflow.test_tuples_that_are_put_together_are_no_addition,
    dataflow.test_a_replacement_that_holds_what_it_replaces_comes_to_an_end,
    branches.test_residual_edges,
    modules.test_a_module_that_is_called_twice,
    modules.test_a_module_under_several_names_is_one,
    modules.test_containers_stay_what_they_are,
    modules.test_keys_stay_and_old_checkpoints_load,
    on(modules.test_a_new_layer_is_like_its_place, torch.float64, False),
    modules.test_mixed_devices_and_dtypes,
    on(
        modules.test_what_is_frozen_is_still_after_three_steps,
        'freeze "body"',
        ("body.0.weight", "body.1.running_mean"),
    ),
    modules.test_the_order_of_memory_stays,
    modules.test_new_weights,
    modules.test_hooks_fire_as_often_as_before,
    modules.test_attributes_and_methods,
    modes.test_layers_around_an_opaque_forward_run,
    modes.test_layers_around_an_opaque_forward_live_on,
    on(modes.test_what_changes_nothing_changes_nothing, modes.Ignored, False),
    tools.test_a_new_layer_is_in_the_mode_of_its_place,
    test_edits.test_a_wrapped_layer_keeps_mode_dtype_and_whether_it_learns,
    on(test_edits.test_a_call_moves_in_a_graph, lambda m: test_edits.Move(m.call("bn"), "after", m.call("conv2"))),
    on(test_folding.test_behind_a_convolution, "plain 2d", "both", True),
    on(test_folding.test_behind_a_convolution, "transposed, grouped", "both", True),
    test_own_layers.test_taps_collect_what_was_seen,
    on(migration.test_an_old_checkpoint_loads, "wrap"),
    check_arguments_of_new_layers,
    check_weights_drawn_anew,
    check_weights_kept,
    check_folds_in_a_model,
    code.test_functions_and_methods_are_sites_wherever_they_stand,
    code.test_the_inputs_and_arguments_of_a_function,
    code.test_rules_on_top_of_rules,
    code.test_what_overwrites_its_input,
    code.test_decorators_closures_and_parents,
    code.test_the_operands_of_operators,
    code.test_sums_of_other_things_are_left_alone,
    code.test_names_that_stand_for_something_else_are_left_alone,
    code.test_branches_on_plain_attributes_and_on_the_mode,
    code.test_an_attribute_that_a_module_sets_on_another_is_not_settled,
)


def failing(stop: bool = True) -> list[str]:
    """Which checks of the battery fail; the first one is enough."""
    found = []
    for check in BATTERY:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                check()
            except (Exception, pytest.fail.Exception) as problem:
                found.append(f"{getattr(check, '__name__', check)}: {str(problem).splitlines()[:1]}")
                if stop:
                    break
    return found


# ---- faults

Patch = pytest.MonkeyPatch
FAULTS: dict[str, Callable[[Patch], None]] = {}


def fault(seed: Callable[[Patch], None]) -> Callable[[Patch], None]:
    FAULTS[seed.__name__.replace("_", " ")] = seed
    return seed


def edits_through(patch: Patch, change: Callable[[list[Any]], Iterable[Any]]) -> None:
    run = writer.Writer.run
    patch.setattr(writer.Writer, "run", lambda self, edits: run(self, list(change(list(edits)))))


@fault
def missed_site(patch: Patch) -> None:
    edits_through(patch, lambda edits: edits[:-1] if len(edits) > 1 else edits)


@fault
def double_insertion(patch: Patch) -> None:
    def twice(draft: Any, edit: Insert) -> None:
        insertion.insert(draft, edit)
        insertion.insert(draft, edit)

    patch.setattr(writer, "insert", twice)


@fault
def swapped_operands(patch: Patch) -> None:
    ahead = insertion._chain_ahead
    patch.setattr(
        insertion,
        "_chain_ahead",
        lambda draft, call, slot, names: ahead(draft, call, len(occurrences(call)) - 1 - slot, names),
    )


@fault
def lost_tie(patch: Patch) -> None:
    patch.setattr(drafts.Draft, "_share_parameters", lambda self: None)


@fault
def stale_statistics_in_a_layer_drawn_anew(patch: Patch) -> None:
    patch.setattr(nn.BatchNorm2d, "reset_running_stats", lambda self: None)


def built(patch: Patch, change: Callable[[nn.Module], nn.Module]) -> None:
    build = layers.Builder.build
    patch.setattr(layers.Builder, "build", lambda self, new, place: change(build(self, new, place)))


@fault
def wrong_mode_of_the_new_layer(patch: Patch) -> None:
    built(patch, lambda layer: layer.train())


@fault
def wrong_dtype(patch: Patch) -> None:
    built(patch, lambda layer: layer.float())


def placed(patch: Patch, **facts: Any) -> None:
    build = layers.Builder.build
    patch.setattr(layers.Builder, "build", lambda self, new, place: build(self, new, replace(place, **facts)))


@fault
def wrong_device(patch: Patch) -> None:
    placed(patch, device=torch.device("cpu"))


@fault
def one_instance_for_all_sites(patch: Patch) -> None:
    build = layers.Builder.build

    def once(self: Any, new: Any, place: Any) -> nn.Module:
        known = self.__dict__.setdefault("known", {})
        if new.name not in known:
            known[new.name] = build(self, new, place)
        return known[new.name]

    patch.setattr(layers.Builder, "build", once)


@fault
def one_of_two_uses_only(patch: Patch) -> None:
    def behind(draft: Any, call: fx.Node, names: list[str]) -> None:
        users, value = list(call.users), call
        for name in names:
            with call.graph.inserting_after(value):
                value = call.graph.call_module(name, (value,))
        users[0].replace_input_with(call, value)

    patch.setattr(insertion, "_chain_behind", behind)


@fault
def before_instead_of_after(patch: Patch) -> None:
    patch.setattr(insertion, "_chain_behind", lambda draft, call, names: insertion._chain_ahead(draft, call, 0, names))


@fault
def in_place_call_removed(patch: Patch) -> None:
    finish = drafts.Draft.finish

    def clean(self: Any) -> None:
        for scope in self.changed.values():
            for body in scope.bodies.values():
                for node in body.graph.nodes:
                    module = body.children.get(node)
                    if getattr(module, "inplace", False) or str(node.target).endswith("_"):
                        node.replace_all_uses_with(node.args[0])
                        body.graph.erase_node(node)
        finish(self)

    patch.setattr(drafts.Draft, "finish", clean)


def copied(patch: Patch, change: Callable[[nn.Module], None]) -> None:
    """Every copy of a module is changed."""
    plain = module_facts.shallow_copy

    def copy(module: nn.Module) -> nn.Module:
        twin = plain(module)
        change(twin)
        return twin

    patch.setattr(drafts, "shallow_copy", copy)
    patch.setattr(module_facts, "shallow_copy", copy)


@fault
def dropped_hook(patch: Patch) -> None:
    copied(patch, lambda twin: twin._forward_hooks.clear())


@fault
def renamed_key(patch: Patch) -> None:
    finish = drafts.Draft.finish

    def numbered(self: Any) -> None:
        finish(self)
        for owner in self.order:
            if isinstance(owner, nn.Sequential):
                children = list(owner._modules.values())
                owner._modules.clear()
                owner._modules.update({str(number): child for number, child in enumerate(children)})

    patch.setattr(drafts.Draft, "finish", numbered)


@fault
def weights_copied_instead_of_shared(patch: Patch) -> None:
    def change(twin: nn.Module) -> None:
        for name, value in twin._parameters.items():
            if value is not None:
                twin._parameters[name] = nn.Parameter(value.detach().clone(), value.requires_grad)

    copied(patch, change)


@fault
def original_changed(patch: Patch) -> None:
    patch.setattr(drafts, "shallow_copy", lambda module: module)


@fault
def lost_flag_of_buffers_that_are_not_saved(patch: Patch) -> None:
    copied(patch, lambda twin: twin._non_persistent_buffers_set.clear())


@fault
def wrong_order_in_a_sequential(patch: Patch) -> None:
    patch.setattr(drafts.Draft, "ordered", lambda self, owner: list(owner._modules))


@fault
def bias_dropped(patch: Patch) -> None:
    def change(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Linear):
            layer.bias = None
        return layer

    built(patch, change)


def keywords_without(patch: Patch, name: str) -> None:
    build = layers.Builder.build

    def without(self: Any, new: Any, place: Any) -> nn.Module:
        keywords = {key: value for key, value in new.keywords.items() if key != name}
        return build(self, replace(new, keywords=keywords), place)

    patch.setattr(layers.Builder, "build", without)


@fault
def eps_lost(patch: Patch) -> None:
    keywords_without(patch, "eps")


@fault
def seed_ignored(patch: Patch) -> None:
    patch.setattr(layers.Builder, "seed_for", lambda self, name: None)


@fault
def one_seed_for_all(patch: Patch) -> None:
    patch.setattr(layers.Builder, "seed_for", lambda self, name: torch.manual_seed(0))


@fault
def freeze_leaves_statistics(patch: Patch) -> None:
    patch.setattr(updates, "_set_statistics", lambda draft, layer, still: None)


@fault
def per_layer_instead_of_per_call(patch: Patch) -> None:
    def shared(draft: Any, edit: Insert) -> None:
        path = edit.node.layer.path if edit.node.layer is not None else edit.node.name
        new = [replace(layer, share=f"{path} {number}") for number, layer in enumerate(edit.layers)]
        insertion.insert(draft, replace(edit, layers=tuple(new)))

    patch.setattr(writer, "insert", shared)


@fault
def a_branch_edited_for_all_consumers(patch: Patch) -> None:
    def ahead(draft: Any, call: fx.Node, slot: int, names: list[str]) -> None:
        insertion._chain_behind(draft, occurrences(call)[slot][1], names)

    patch.setattr(insertion, "_chain_ahead", ahead)


@fault
def fold_without_the_mean(patch: Patch) -> None:
    plain = folding.scale_and_shift

    def scale_and_shift(norm: nn.Module) -> Any:
        scale, shift = plain(norm)
        return scale, shift + norm.running_mean.double() * scale  # type: ignore[operator,union-attr]

    patch.setattr(folding, "scale_and_shift", scale_and_shift)


@fault
def fold_along_the_wrong_axis_of_a_transposed_convolution(patch: Patch) -> None:
    def behind(layer: nn.Module, norm: nn.Module) -> folding.Folded:
        plain = folding.fold_behind(layer, norm)
        if not isinstance(layer, nn.ConvTranspose2d):
            return plain
        scale, _ = folding.scale_and_shift(norm)
        return folding.Folded((layer.weight.double() * scale.view(-1, 1, 1, 1)).float().detach(), plain.bias)

    patch.setattr(updates, "fold_behind", behind)


@fault
def fold_behind_as_if_it_were_ahead(patch: Patch) -> None:
    patch.setattr(updates, "fold_behind", folding.fold_ahead)


@fault
def move_leaves_the_old_call(patch: Patch) -> None:
    def bypass(self: Any) -> None:
        twin = self.call.graph.node_copy(self.call, lambda node: node)
        self.call.prepend(twin)
        self.call.replace_all_uses_with(twin)
        self.draft.touch(self.scope)

    patch.setattr(moving._Place, "_bypass", bypass)


@fault
def replace_keeps_the_old_call(patch: Patch) -> None:
    def behind(draft: Any, edit: Replace) -> None:
        calls = edit.calls or (edit.target,)
        for call in calls:
            insertion.insert(draft, Insert(call, None, edit.layers))

    patch.setattr(writer, "replace", behind)


@fault
def tap_changes_the_output(patch: Patch) -> None:
    def forward(self: Any, input: torch.Tensor) -> torch.Tensor:
        self.last = input
        return input.detach()

    patch.setattr(own_layers.Tap, "forward", forward)


@fault
def alias_lost(patch: Patch) -> None:
    put = drafts.Draft.put
    patch.setattr(drafts.Draft, "put", lambda self, layer, module: put(self, replace(layer, aliases=()), module))


@fault
def recipe_not_pickled(patch: Patch) -> None:
    pack = generated.pack
    patch.setattr(generated, "pack", lambda recipe: pack(Recipe()))


# ---- further ones of the same kind


@fault
def extended_layer_without_what_stands_in_front(patch: Patch) -> None:
    extend = generated._extended_forward
    patch.setattr(generated, "_extended_forward", lambda base, recipe: extend(base, replace(recipe, before=())))


@fault
def order_of_memory_lost(patch: Patch) -> None:
    def same(parameter: nn.Parameter, learns: bool) -> nn.Parameter:
        return nn.Parameter(parameter.detach().clone(memory_format=torch.contiguous_format), learns)

    patch.setattr(updates, "same_storage", same)


@fault
def second_application_not_noticed(patch: Patch) -> None:
    patch.setattr(TorchBackend, "set_history", lambda self, model, marks: None)


@fault
def weights_of_the_same_class_not_kept(patch: Patch) -> None:
    patch.setattr(replacement, "keep_equal_weights", lambda old, new: None)


@fault
def other_generators_disturbed(patch: Patch) -> None:
    patch.setattr(layers.Builder, "own_randomness", lambda self: contextlib.nullcontext())


@fault
def remove_takes_the_layer_and_leaves_the_next_unread(patch: Patch) -> None:
    def entry(draft: Any, path: str, name: str) -> None:
        owner = draft.mutable(path)
        names = draft.ordered(owner)
        del owner._modules[names[min(names.index(name) + 1, len(names) - 1)]]

    patch.setattr(removal, "remove_entry", entry)


@fault
def shared_with_the_given_model(patch: Patch) -> None:
    patch.setattr(TorchBackend, "separate", lambda self, model, given: model)


@fault
def frozen_parameter_still_learns(patch: Patch) -> None:
    edits_through(
        patch,
        lambda edits: [
            edit for edit in edits if not (isinstance(edit, Update) and edit.changes.get("trainable") is False)
        ],
    )


@fault
def class_forgotten(patch: Patch) -> None:
    patch.setattr(drafts, "generate_class", lambda base, recipe: generated.generate_class(nn.Module, recipe))


@fault
def another_call_of_the_code(patch: Patch) -> None:
    changed = code_changes._changed
    patch.setattr(
        code_changes,
        "_changed",
        lambda source, changes, filename: changed(
            source, {(number + 1) % len(source.calls): change for number, change in changes.items()}, filename
        ),
    )


@fault
def operands_of_an_operator_swapped(patch: Patch) -> None:
    def swapped(call: Any, argument: Any) -> Any:
        return argument_of(call, 1 - argument if isinstance(call, code_changes.ast.BinOp) else argument)

    argument_of = code_changes.argument_of
    patch.setattr(code_changes, "argument_of", swapped)


@fault
def what_is_overwritten_keeps_its_value(patch: Patch) -> None:
    change = code_changes.CodeChange
    patch.setattr(code_changes, "CodeChange", lambda takes, **parts: change(takes, **{**parts, "overwrites": False}))


@fault
def decorators_of_the_code_lost(patch: Patch) -> None:
    source_of = code_changes.source_of
    patch.setattr(
        code_changes,
        "source_of",
        lambda cls, method: replace(source, around=()) if (source := source_of(cls, method)) is not None else None,
    )


@fault
def branches_of_the_code_not_told_apart(patch: Patch) -> None:
    patch.setattr(written.Source, "way_to", lambda self, node: ())


@fault
def tuples_taken_for_tensors(patch: Patch) -> None:
    patch.setattr(spellings, "is_of_sequences", lambda node: False)


@fault
def what_others_set_taken_for_settled(patch: Patch) -> None:
    patch.setattr(code_calls, "set_from_outside", lambda classes: frozenset())


@fault
def numbers_taken_for_tensors(patch: Patch) -> None:
    patch.setattr(
        code_calls.CodeReader,
        "_operands",
        lambda self, node, arguments, *_, **__: ({str(number): one for number, one in enumerate(arguments)}, True),
    )


@fault
def names_taken_for_what_they_are_called(patch: Patch) -> None:
    patch.setattr(written.Source, "local", frozenset())


def test_without_a_fault_nothing_fails() -> None:
    assert failing(stop=False) == []


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 30


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "_classes", {})  # classes that were made without the fault are not used, nor kept
        FAULTS[name](patch)
        yield


FAST = ("missed site", "swapped operands", "lost tie", "dropped hook", "alias lost")


@pytest.mark.parametrize("name", FAST)
def test_a_fault_is_caught(name: str) -> None:
    with seeded(name):
        assert failing()
    assert len(FAST) == 5


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught(name: str, record_property: Callable[[str, object], None]) -> None:
    with seeded(name):
        found = failing()
    record_property("summary", f"{name}: {found[0] if found else 'not caught'}")
    assert found, f"no check sees it: {name}"
