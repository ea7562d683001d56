"""Transformers models with tiny configurations: many forwards cannot be captured, their layers can be edited."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from counting import Call, calls, tensors
from tiny_transformers import TYPES
from torch import Tensor, nn

from rewrite import RewriteError, Rules, apply_rules, get_report, probe

transformers = pytest.importorskip("transformers")

RULES = Rules("after Linear: insert Dropout(0.1)")


def _ids(length: int = 6) -> Tensor:
    return torch.arange(2 * length).view(2, length) % 7 + 1


def bert() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertForSequenceClassification(config), {"input_ids": _ids()}


def llama() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
    )
    return transformers.LlamaForCausalLM(config), {"input_ids": _ids()}


def vit() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config), {"pixel_values": torch.ones(2, 3, 8, 8)}


def t5() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.T5Config(
        vocab_size=11, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config), {"input_ids": _ids(), "decoder_input_ids": _ids(4)}


def whisper() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.WhisperConfig(
        vocab_size=11,
        num_mel_bins=4,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=8,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    return model, {"input_features": torch.ones(2, 4, 16), "decoder_input_ids": _ids(4)}


def gpt2() -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config), {"input_ids": _ids()}


def outputs(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Every tensor of the output; caches and other objects in it are no tensors."""
    with torch.no_grad():
        return [value for _, value in tensors(dict(model(**inputs)))]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def check(make: Callable[[], Any], rules: Rules, kinds: dict[type, str], **options: Any) -> None:
    """Sites as counted, outputs equal in eval, dropout active in training, keys and class kept."""
    torch.manual_seed(3)
    model, inputs = make()
    model = model.eval()
    for part in model.modules():  # the only dropout in training shall be the new one
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop", "dropout_rate"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    found = calls(model, inputs, kinds)
    sites = sum(call.operation == "Linear" for call in found)
    was = outputs(model, inputs)
    keys = list(model.state_dict())
    result = apply_rules(model, rules, **options)
    assert get_report(result).sites == sites > 0
    assert isinstance(result, type(model))
    assert list(result.state_dict()) == keys
    dropouts = sum(call.operation == "Dropout" for call in calls(result, inputs, kinds))
    assert dropouts == sites + sum(call.operation == "Dropout" for call in found)
    assert same(was, outputs(result, inputs))
    assert same(was, outputs(model, inputs))
    training = copy.deepcopy(model).train()
    assert same(outputs(training, inputs), outputs(training, inputs))
    training = copy.deepcopy(result).train()
    assert not same(outputs(training, inputs), outputs(training, inputs))


@pytest.mark.parametrize("make", [bert, llama, vit, t5, whisper])
def test_dropout_behind_every_linear(make: Callable[[], Any]) -> None:
    check(make, RULES, {})


def test_a_class_of_its_own_given_by_name() -> None:
    kind = transformers.pytorch_utils.Conv1D
    rules = Rules("after Linear | Conv1D: insert Dropout(0.1)")
    check(gpt2, rules, {kind: "Linear"}, modules={"Conv1D": kind})


def test_a_class_of_its_own_by_dotted_name() -> None:
    kind = transformers.pytorch_utils.Conv1D
    rules = Rules("after Linear | transformers.pytorch_utils.Conv1D: insert Dropout(0.1)")
    check(gpt2, rules, {kind: "Linear"})


QUICK = ("bert", "deberta-v2", "gpt2", "llama", "t5", "whisper", "swin", "clip")
"""types of the normal run: one at least of each way in which they are built"""
EACH_TYPE = [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.long) for kind in TYPES]


SHORT = {
    "mamba": "its mixer holds an activation that nothing calls, which only an example input can show",
}
"""types for which not all holds -> what does not"""


def own_norms(model: nn.Module) -> dict[type, str]:
    """Classes of a model's own that are called a norm and compute one by themselves, without a function of torch."""
    found = {type(module) for module in model.modules() if type(module).__name__.endswith(("RMSNorm", "LayerNorm"))}
    own = {kind for kind in found if not issubclass(kind, nn.LayerNorm | nn.RMSNorm)}
    return {kind: "LayerNorm" for kind in own if not {"layer_norm", "rms_norm"} & set(kind.forward.__code__.co_names)}


def rules_for(model: nn.Module) -> dict[str, tuple[Rules, Callable[[Call], bool]]]:
    """Title -> the rule, and which real calls are its places."""
    norms = sorted({"LayerNorm", "RMSNorm", *(kind.__name__ for kind in own_norms(model))})
    return {
        "Linear": (Rules("after Linear: insert Dropout(0.1)"), lambda call: call.operation == "Linear"),
        "norm": (
            Rules(f"after {' | '.join(norms)}: insert Identity"),
            lambda call: call.operation in ("LayerNorm", "RMSNorm"),
        ),
        "activation": (Rules("after activation: insert Dropout(0.1)"), lambda call: call.operation in zoo.ACTIVATIONS),
    }


@pytest.mark.parametrize("kind", EACH_TYPE)
def test_sites_of_each_type(kind: str, request: pytest.FixtureRequest) -> None:
    """Sites are calls, nothing changes in eval mode, keys and class are kept, and text is still written."""
    if kind in SHORT:
        request.applymarker(pytest.mark.xfail(reason=SHORT[kind], strict=True))
    model, inputs = TYPES[kind].build(kind), TYPES[kind].inputs()
    real = calls(model, inputs, own_norms(model))
    runs = zoo.runs_of(model, (), inputs)
    was = outputs(model, inputs)
    for title, (rules, is_place) in rules_for(model).items():
        wanted = [call for call in real if is_place(call)]
        outcome, result = zoo.compared(kind, title, rules, model, inputs, wanted, runs)
        assert outcome.is_equal or outcome.is_explained, outcome
        if result is None:
            continue
        assert isinstance(result, type(model))
        assert list(result.state_dict()) == list(model.state_dict())
        assert same(was, outputs(result, inputs))
        if TYPES[kind].generates:
            assert torch.equal(written(model, inputs), written(result, inputs))
    assert same(was, outputs(model, inputs))


FUNCTIONS = (
    "after add: insert Dropout(0.1)",
    "after mul: insert Identity",
    "before matmul@1: insert Dropout(0.1)",
    "after softmax: insert Identity",
)
"""rules about functions and operators, which most forwards mix with arithmetic of sizes, tuples and masks"""


@pytest.mark.parametrize("kind", EACH_TYPE)
def test_functions_of_each_type(kind: str) -> None:
    """What stands behind functions changes nothing in eval mode; without an example input, or it is asked for."""
    model, inputs = TYPES[kind].build(kind), TYPES[kind].inputs()
    was = outputs(model, inputs)
    for text in FUNCTIONS:
        for options in ({}, {"example_inputs": inputs}):
            try:
                result = apply_rules(model, Rules(f"{text}; expect any matches"), **options)
            except RewriteError as error:
                if error.code == "RW206" and not options:
                    continue
                raise
            assert same(was, outputs(result, inputs)), text
            if TYPES[kind].generates:
                assert torch.equal(written(model, inputs), written(result, inputs)), text


def written(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The next tokens, without any chance in it."""
    given = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
    generate: Any = model.generate
    return generate(**given, max_new_tokens=4, do_sample=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", EACH_TYPE)
def test_inputs_are_found(kind: str) -> None:
    model = TYPES[kind].build(kind)
    found = probe(model)
    assert found.inputs is not None, found.tried
    args, keywords = found.inputs
    with torch.no_grad():
        model(*args, **keywords)
