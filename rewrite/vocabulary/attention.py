"""Attention.

`nn.TransformerEncoderLayer` and its kin have no rows: they are built from layers that rules reach into, and an
operation is one step that nobody looks inside of.
"""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

ATTENTION = (
    Operation(
        "MultiheadAttention",
        signature="embed_dim, num_heads, dropout=0.0, bias=True, add_bias_kv=False, add_zero_attn=False, kdim=None, "
        "vdim=None, batch_first=False",
        shape=Shape.SAME,
        reads={"embed_dim": -1},
        rank=3,
        ports=("query", "key", "value"),
        outputs=2,
        module="torch.nn.MultiheadAttention",
        functions={
            "torch.nn.functional.multi_head_attention_forward": "query, key, value, embed_dim_to_check, num_heads, "
            "in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, "
            "training=True, key_padding_mask=None, need_weights=True, attn_mask=None, use_separate_proj_weight=False, "
            "q_proj_weight=None, k_proj_weight=None, v_proj_weight=None, static_k=None, static_v=None, "
            "average_attn_weights=True, is_causal=False"
        },
    ),
    Operation(
        "scaled_dot_product_attention",  # of the query's shape, but for the last axis, which is the value's
        ports=("query", "key", "value"),
        functions={
            "torch.nn.functional.scaled_dot_product_attention": "query, key, value, attn_mask=None, dropout_p=0.0, "
            "is_causal=False, *, scale=None, enable_gqa=False"
        },
    ),
)
