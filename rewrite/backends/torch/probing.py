"""Looks for arguments that a model takes: guesses from names, stated sizes and first layers, each tried on shapes.

A guess gives every required argument of `forward` a value. What an argument is, its name says where it is a common one
(`input_ids`, `pixel_values`); else it is what the first layer of the model takes. How large it is, the model often
states (an image size, a vocabulary); else common sizes are tried, small ones first.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rewrite.backends.backend import Example, Probe
from rewrite.backends.torch.run import why_not, why_not_on_shapes
from rewrite.backends.torch.scopes import forward_signature

_MOST = 40
"""guesses that are tried"""
_MOST_COMPUTED = 4
"""guesses that are tried with numbers where none runs on shapes"""
_LENGTH = 8
"""of a text, in tokens"""
_IMAGE_SIZES = (64, 224, 32, 96, 128, 28, 256, 299, 384, 448, 512)
_VIDEO_SIZES = ((8, 64), (16, 112), (16, 224), (8, 224), (32, 224))
"""(frames, height and width)"""
_SOUND_LENGTHS = (64, 400, 1024, 4000, 16000)

_KINDS: Mapping[str, str] = {
    "input_ids": "ids",
    "decoder_input_ids": "ids",
    "tokens": "ids",
    "token_ids": "ids",
    "attention_mask": "ones",
    "decoder_attention_mask": "ones",
    "token_type_ids": "zeros",
    "bbox": "boxes",
    "pixel_values": "image",
    "pixel_values_videos": "clips",
    "image": "image",
    "image1": "image",
    "image2": "image",
    "images": "images",
    "video": "video",
    "input_values": "waveform",
    "waveform": "waveform",
    "input_features": "features",
}
"""name of an argument -> what it usually is"""

_HELPFUL = ("attention_mask", "decoder_input_ids", "token_type_ids", "bbox", "pixel_values", "input_ids")
"""optional arguments that models ask for all the same"""


@dataclass(frozen=True)
class _Facts:
    """What a model says of its inputs, `None` or empty where it does not."""

    images: tuple[tuple[int, int], ...]
    """heights and widths"""
    channels: int | None
    vocabulary: int | None
    features: int | None
    """of one step of sound, or mel bins"""
    frames: int | None
    device: torch.device
    dtype: torch.dtype
    batch: int


_Maker = Callable[[_Facts], Iterator[Any]]


def probe(model: nn.Module, batch: int) -> Probe:
    """The first guess that `model` runs on; it is not changed."""
    facts = _facts(model, batch)
    has_numbers = facts.device.type != "meta"
    tried: list[tuple[str, str]] = []
    guesses = list(itertools.islice(_guesses(model, facts), _MOST))
    for example in guesses:
        why, needs_numbers = why_not_on_shapes(model, example)
        if needs_numbers:
            why = why_not(model, example) if has_numbers else f"its shapes depend on numbers, and it has none ({why})"
        if not why:
            return Probe(example, tuple(tried))
        tried.append((_described(example), why))
    for number, example in enumerate(guesses[:_MOST_COMPUTED] if has_numbers else ()):
        if not why_not(model, example):  # some operations run, and do not tell the shapes that they make
            return Probe(example, tuple(tried[:number]))
    return Probe(None, tuple(tried))


def _guesses(model: nn.Module, facts: _Facts) -> Iterator[Example]:
    """Arguments, the likeliest first."""
    parameters = list(forward_signature(model).parameters.values())[1:]
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in plain if p.default is inspect.Parameter.empty]
    main = getattr(model, "main_input_name", None)
    if isinstance(main, str) and main in {p.name for p in plain}:
        names = [main, *(p.name for p in required if p.name != main)]
        yield from _by_name(names, plain, facts)
        return
    named = [p.name for p in required]
    if not named:
        named = [p.name for p in plain if p.name in _KINDS][:1] or [p.name for p in plain][:1]
    if named and all(name in _KINDS for name in named):
        yield from _by_name(named, plain, facts)
    count = max(len(required), 1)
    if facts.images and _stated_channels(model) is not None:  # whatever its first layer takes
        for value in _image(facts):
            yield Example((value,) * count)
    for make in _of_layers(model):
        for value in make(facts):
            yield Example((value,) * count)


def _by_name(names: Sequence[str], plain: Sequence[inspect.Parameter], facts: _Facts) -> Iterator[Example]:
    known = {p.name: p for p in plain}
    makers = [_MAKERS[_KINDS.get(name, "ids")] for name in names]
    helpful = [name for name in _HELPFUL if name in known and name not in names]
    for values in zip(*_evenly(make(facts) for make in makers), strict=True):
        given = dict(zip(names, values, strict=True))
        yield Example((), given)
        for last in range(1, len(helpful) + 1):
            more = {name: next(_MAKERS[_KINDS[name]](facts)) for name in helpful[:last]}
            yield Example((), {**given, **more})


def _evenly(values: Iterator[Iterator[Any]]) -> list[list[Any]]:
    """As many of each: the last one again where there are fewer."""
    lists = [list(one) for one in values]
    longest = max(map(len, lists))
    return [one + one[-1:] * (longest - len(one)) for one in lists]


# ---- what a value is


def _image(facts: _Facts) -> Iterator[torch.Tensor]:
    for height, width in facts.images or tuple((size, size) for size in _IMAGE_SIZES):
        yield _floats(facts, facts.batch, facts.channels or 3, height, width)


def _images(facts: _Facts) -> Iterator[list[torch.Tensor]]:
    for height, width in facts.images or ((64, 64), (224, 224)):
        yield [_floats(facts, facts.channels or 3, height, width) for _ in range(facts.batch)]


def _video(facts: _Facts) -> Iterator[torch.Tensor]:
    for frames, size in _VIDEO_SIZES:
        yield _floats(facts, facts.batch, facts.channels or 3, frames, size, size)


def _clips(facts: _Facts) -> Iterator[torch.Tensor]:
    for height, width in facts.images or ((224, 224),):
        yield _floats(facts, facts.batch, facts.frames or 8, facts.channels or 3, height, width)


def _waveform(facts: _Facts) -> Iterator[torch.Tensor]:
    for length in reversed(_SOUND_LENGTHS):
        yield _floats(facts, facts.batch, length)


def _features(facts: _Facts) -> Iterator[torch.Tensor]:
    width = facts.features or 80
    yield _floats(facts, facts.batch, width, (facts.frames or 1500) * 2)  # whisper: two steps make one position
    yield _floats(facts, facts.batch, 64, width)


def _ids(facts: _Facts) -> Iterator[torch.Tensor]:
    for length in (_LENGTH, 64):
        yield _counted(facts, length)


def _ones(facts: _Facts) -> Iterator[torch.Tensor]:
    yield torch.ones(facts.batch, _LENGTH, dtype=torch.int64, device=facts.device)


def _zeros(facts: _Facts) -> Iterator[torch.Tensor]:
    yield torch.zeros(facts.batch, _LENGTH, dtype=torch.int64, device=facts.device)


def _boxes(facts: _Facts) -> Iterator[torch.Tensor]:
    yield torch.zeros(facts.batch, _LENGTH, 4, dtype=torch.int64, device=facts.device)


_MAKERS: Mapping[str, _Maker] = {
    "image": _image,
    "images": _images,
    "video": _video,
    "clips": _clips,
    "waveform": _waveform,
    "features": _features,
    "ids": _ids,
    "ones": _ones,
    "zeros": _zeros,
    "boxes": _boxes,
}


def _counted(facts: _Facts, length: int) -> torch.Tensor:
    """Token ids that differ and that every vocabulary has, special ones at its beginning left out where it can be."""
    most = facts.vocabulary or 100
    numbers = torch.arange(facts.batch * length).view(facts.batch, length)
    return (numbers % max(min(most, 100) - 4, 1) + min(3, most - 1)).to(facts.device)


def _floats(facts: _Facts, *sizes: int) -> torch.Tensor:
    if facts.device.type == "meta":
        return torch.empty(sizes, dtype=facts.dtype, device=facts.device)
    numbers = torch.rand(sizes, generator=torch.Generator().manual_seed(0))  # images lie between 0 and 1
    return numbers.to(facts.device, facts.dtype)


# ---- what the first layers take


def _of_layers(model: nn.Module) -> Iterator[_Maker]:
    """What each kind of first layer takes, in the order in which the model holds them."""
    seen: set[type] = set()
    for module in model.modules():
        kind = next((cls for cls in _TAKEN if isinstance(module, cls)), None)
        if kind is None or kind in seen:
            continue
        seen.add(kind)
        yield functools.partial(_TAKEN[kind], module)


def _conv2d(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    for height, width in facts.images:  # what is stated of the image holds, whatever the first layer takes
        yield _floats(facts, facts.batch, facts.channels or layer.in_channels, height, width)
    sizes = dict.fromkeys((*facts.images, *((size, size) for size in _IMAGE_SIZES)))
    for height, width in sizes:
        yield _floats(facts, facts.batch, layer.in_channels, height, width)
    if layer.in_channels != 3:
        yield _floats(facts, facts.batch, 3, 64, 64)
        yield _floats(facts, facts.batch, 3, 224, 224)


def _conv3d(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    for frames, size in _VIDEO_SIZES:
        yield _floats(facts, facts.batch, layer.in_channels, frames, size, size)


def _conv1d(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    for length in _SOUND_LENGTHS:
        yield _floats(facts, facts.batch, layer.in_channels, length)


def _linear(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    yield _floats(facts, facts.batch, layer.in_features)
    yield _floats(facts, facts.batch, _LENGTH, layer.in_features)
    side = round(layer.in_features**0.5)
    if side * side == layer.in_features:
        yield _floats(facts, facts.batch, 1, side, side)


def _recurrent(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    yield _floats(facts, facts.batch, _LENGTH, layer.input_size)


def _attention(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    yield _floats(facts, facts.batch, _LENGTH, layer.embed_dim)


def _norm(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    yield _floats(facts, facts.batch, _LENGTH, *layer.normalized_shape)


def _batch_norm(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    yield _floats(facts, facts.batch, layer.num_features)
    yield _floats(facts, facts.batch, layer.num_features, 64, 64)


def _embedding(layer: Any, facts: _Facts) -> Iterator[torch.Tensor]:
    numbers = torch.arange(facts.batch * _LENGTH).view(facts.batch, _LENGTH)
    yield (numbers % layer.num_embeddings).to(facts.device)


_TAKEN: Mapping[type, Callable[[Any, _Facts], Iterator[torch.Tensor]]] = {
    nn.Conv2d: _conv2d,
    nn.Conv3d: _conv3d,
    nn.Conv1d: _conv1d,
    nn.Embedding: _embedding,
    nn.Linear: _linear,
    nn.RNNBase: _recurrent,
    nn.MultiheadAttention: _attention,
    nn.LayerNorm: _norm,
    nn.modules.batchnorm._BatchNorm: _batch_norm,
}
"""class of a layer -> values that it takes"""


# ---- what a model says


def _facts(model: nn.Module, batch: int) -> _Facts:
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    configs = list(_configs(model))
    channels = _number(configs, "num_channels", "in_channels", "in_chans") or _stated_channels(model)
    return _Facts(
        images=tuple(dict.fromkeys(_image_sizes(model, configs))),
        channels=channels,
        vocabulary=_number(configs, "vocab_size"),
        features=_number(configs, "num_mel_bins", "feature_size", "input_feat_per_channel"),
        frames=_number(configs, "max_source_positions", "num_frames"),
        device=first.device if first is not None else torch.device("cpu"),
        dtype=first.dtype if first is not None else torch.float32,
        batch=batch,
    )


def _configs(model: nn.Module) -> Iterator[object]:
    """The configuration of a model, and those of its parts inside of it."""
    config = getattr(model, "config", None)
    if config is None:
        return
    yield config
    for name in ("vision_config", "text_config", "audio_config", "encoder", "decoder", "backbone_config"):
        part = getattr(config, name, None)
        if part is not None:
            yield part


def _number(configs: Sequence[object], *names: str) -> int | None:
    for config, name in itertools.product(configs, names):
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _stated_channels(model: nn.Module) -> int | None:
    stated = getattr(model, "pretrained_cfg", None)  # timm
    size = stated.get("input_size") if isinstance(stated, dict) else None
    return int(size[0]) if isinstance(size, tuple | list) and len(size) == 3 else None


def _image_sizes(model: nn.Module, configs: Sequence[object]) -> Iterator[tuple[int, int]]:
    for holder in ("pretrained_cfg", "default_cfg"):  # timm
        stated = getattr(model, holder, None)
        size = stated.get("input_size") if isinstance(stated, dict) else None
        if isinstance(size, tuple | list) and len(size) == 3:
            yield int(size[1]), int(size[2])
    for owner in (*configs, *model.modules()):
        for name in ("image_size", "img_size", "spatial_size"):
            size = getattr(owner, name, None) if not isinstance(owner, nn.Module) else owner.__dict__.get(name)
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                yield size, size
            elif isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(one, int) for one in size):
                yield size[0], size[1]


def _described(example: Example) -> str:
    """`input_ids=(2, 8) int64`."""

    def text(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        return f"[{', '.join(map(text, value))}]"

    return ", ".join([*map(text, example.args), *(f"{name}={text(value)}" for name, value in example.kwargs.items())])
