"""Embeddings.

`torch.embedding` and `torch.embedding_bag`, which PyTorch keeps for itself, are no spellings of these rows: the first
takes the weight before the input, the second returns four tensors.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation

EMBEDDING = (
    Operation(
        "Embedding",
        signature="num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, "
        "scale_grad_by_freq=False, sparse=False, _weight=None, _freeze=False",
        writes={"embedding_dim": -1},
        module="torch.nn.Embedding",
        functions={
            "torch.nn.functional.embedding": "input, weight, padding_idx=None, max_norm=None, norm_type=2.0, "
            "scale_grad_by_freq=False, sparse=False"
        },
    ),
    Operation(
        "EmbeddingBag",
        signature="num_embeddings, embedding_dim, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode='mean', "
        "sparse=False, _weight=None, include_last_offset=False, padding_idx=None",
        writes={"embedding_dim": -1},
        module="torch.nn.EmbeddingBag",
        functions={
            "torch.nn.functional.embedding_bag": "input, weight, offsets=None, max_norm=None, norm_type=2, "
            "scale_grad_by_freq=False, mode='mean', sparse=False, per_sample_weights=None, include_last_offset=False, "
            "padding_idx=None"
        },
    ),
)
