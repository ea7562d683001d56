"""Attention, and the Transformer blocks built around it."""

from __future__ import annotations

from rewrite.vocabulary.operation import Operation, Shape

_LAYER = (
    "d_model, nhead, dim_feedforward=2048, dropout=0.1, activation='relu', layer_norm_eps=1e-05, batch_first=False, "
    "norm_first=False, bias=True"
)

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
    Operation(
        "TransformerEncoderLayer",
        signature=_LAYER,
        shape=Shape.SAME,
        reads={"d_model": -1},
        rank=3,
        composite=True,
        ports=("src",),
        module="torch.nn.TransformerEncoderLayer",
    ),
    Operation(
        "TransformerDecoderLayer",
        signature=_LAYER,
        shape=Shape.SAME,
        reads={"d_model": -1},
        rank=3,
        composite=True,
        ports=("tgt", "memory"),
        module="torch.nn.TransformerDecoderLayer",
    ),
    Operation(
        "TransformerEncoder",
        signature="encoder_layer, num_layers, norm=None, enable_nested_tensor=True, mask_check=True",
        shape=Shape.SAME,
        rank=3,
        composite=True,
        ports=("src",),
        module="torch.nn.TransformerEncoder",
    ),
    Operation(
        "TransformerDecoder",
        signature="decoder_layer, num_layers, norm=None",
        shape=Shape.SAME,
        rank=3,
        composite=True,
        ports=("tgt", "memory"),
        module="torch.nn.TransformerDecoder",
    ),
    Operation(
        "Transformer",
        signature="d_model=512, nhead=8, num_encoder_layers=6, num_decoder_layers=6, dim_feedforward=2048, "
        "dropout=0.1, activation='relu', custom_encoder=None, custom_decoder=None, layer_norm_eps=1e-05, "
        "batch_first=False, norm_first=False, bias=True",
        writes={"d_model": -1},
        reads={"d_model": -1},
        rank=3,
        composite=True,
        ports=("src", "tgt"),
        module="torch.nn.Transformer",
    ),
)
