"""Shapes, slices and reductions of tensors, and the few layers that do the same."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_REDUCE = "dim=None, keepdim=False, *, dtype=None"
_UNFOLD = "kernel_size, dilation=1, padding=0, stride=1"
_FOLD = "output_size, kernel_size, dilation=1, padding=0, stride=1"

TENSORS = (
    Operation(
        "Flatten",
        signature="start_dim=1, end_dim=-1",
        module="torch.nn.Flatten",
        functions={"torch.flatten": "input, start_dim=0, end_dim=-1"},  # from axis 0, where the module keeps the batch
        methods={"flatten": "start_dim=0, end_dim=-1"},
    ),
    Operation(
        "Unflatten",
        signature="dim, unflattened_size",
        module="torch.nn.Unflatten",
        functions={"torch.unflatten": "input, dim, sizes"},
        methods={"unflatten": "dim, sizes"},
    ),
    Operation(
        "Unfold",
        signature=_UNFOLD,
        rank=4,
        module="torch.nn.Unfold",
        functions={"torch.nn.functional.unfold": f"input, {_UNFOLD}"},  # `Tensor.unfold` is another operation
    ),
    Operation(
        "Fold",
        signature=_FOLD,
        rank=3,
        module="torch.nn.Fold",
        functions={"torch.nn.functional.fold": f"input, {_FOLD}"},
    ),
    Operation(
        "CosineSimilarity",
        signature="dim=1, eps=1e-08",
        ports=("x1", "x2"),
        module="torch.nn.CosineSimilarity",
        functions={
            "torch.nn.functional.cosine_similarity": "x1, x2, dim=1, eps=1e-08",
            "torch.cosine_similarity": "x1, x2, dim=1, eps=1e-08",
        },
    ),
    Operation(
        "PairwiseDistance",
        signature="p=2.0, eps=1e-06, keepdim=False",
        ports=("x1", "x2"),
        module="torch.nn.PairwiseDistance",
        functions={
            "torch.nn.functional.pairwise_distance": "x1, x2, p=2.0, eps=1e-06, keepdim=False",
            "torch.pairwise_distance": "x1, x2, p=2.0, eps=1e-06, keepdim=False",
        },
    ),
    Operation(
        "chunk",
        shape=Shape.SPLIT,
        outputs=0,
        functions={"torch.chunk": "input, chunks, dim=0"},
        methods={"chunk": "chunks, dim=0"},
    ),
    Operation(
        "split",
        shape=Shape.SPLIT,
        outputs=0,
        functions={"torch.split": "tensor, split_size_or_sections, dim=0"},
        methods={"split": "split_size, dim=0"},
    ),
    Operation(
        "unbind",  # its pieces lose the axis `dim`
        outputs=0,
        functions={"torch.unbind": "input, dim=0"},
        methods={"unbind": "dim=0"},
    ),
    Operation("getitem", functions={"operator.getitem": "a, b"}),
    Operation("view", methods={"view": "*shape"}),
    Operation("reshape", functions={"torch.reshape": "input, shape"}, methods={"reshape": "*shape"}),
    Operation("permute", functions={"torch.permute": "input, dims"}, methods={"permute": "*dims"}),
    Operation(
        "transpose",
        functions={"torch.transpose": "input, dim0, dim1"},
        methods={"transpose": "dim0, dim1", "transpose_": "dim0, dim1"},
    ),
    Operation(
        "squeeze",
        functions={"torch.squeeze": "input, dim=None"},
        methods={"squeeze": "dim=None", "squeeze_": "dim=None"},
    ),
    Operation(
        "unsqueeze",
        functions={"torch.unsqueeze": "input, dim"},
        methods={"unsqueeze": "dim", "unsqueeze_": "dim"},
    ),
    Operation("mean", functions={"torch.mean": f"input, {_REDUCE}"}, methods={"mean": _REDUCE}),
    Operation("sum", functions={"torch.sum": f"input, {_REDUCE}"}, methods={"sum": _REDUCE}),
    # The three below hand their input on, so that sizes are known behind them too.
    Operation("contiguous", shape=Shape.SAME, methods={"contiguous": "*, memory_format=None"}),
    Operation(
        "clone",
        shape=Shape.SAME,
        functions={"torch.clone": "input, *, memory_format=None"},
        methods={"clone": "*, memory_format=None"},
    ),
    Operation("detach", shape=Shape.SAME, functions={"torch.detach": "input"}, methods={"detach": ""}),
)
