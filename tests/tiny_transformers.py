"""Transformers models of many types, each from a tiny configuration, with inputs that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""what most configurations call their sizes"""
GROUPED = {**PLAIN, "num_key_value_heads": 1}
N_NAMES = {
    "vocab_size": 40,
    "n_positions": 64,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
D_MODEL = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
T5_LIKE = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}
SOUND = {
    **PLAIN,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "apply_spec_augment": False,
}


def ids(length: int = 6) -> Tensor:
    """Two sequences of tokens that end with that for the end; none of them is padding."""
    numbers = torch.arange(2 * length).view(2, length) % 30 + 5
    numbers[:, -1] = 2
    return numbers


def text() -> dict[str, Tensor]:
    return {"input_ids": ids(), "attention_mask": torch.ones(2, 6, dtype=torch.int64)}


def two_texts() -> dict[str, Tensor]:
    return {"input_ids": ids(), "decoder_input_ids": ids(4)}


def image(size: int = 16) -> dict[str, Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size)}


def large_image() -> dict[str, Tensor]:
    return image(64)


def text_and_image() -> dict[str, Tensor]:
    return {**text(), **image()}


def sound() -> dict[str, Tensor]:
    return {"input_values": torch.linspace(-1, 1, 2 * 400).view(2, 400)}


def spectrum_and_text() -> dict[str, Tensor]:
    return {"input_features": torch.linspace(-1, 1, 2 * 4 * 16).view(2, 4, 16), "decoder_input_ids": ids(4)}


def text_with_boxes() -> dict[str, Tensor]:
    return {**text(), "bbox": torch.zeros(2, 6, 4, dtype=torch.int64)}


@dataclass(frozen=True)
class Tiny:
    """One model type."""

    head: str
    """class of the model"""
    sizes: Mapping[str, Any]
    inputs: Callable[[], dict[str, Tensor]] = text
    more: Mapping[str, Any] = field(default_factory=dict)
    """further entries of the configuration"""
    generates: bool = False

    def build(self, kind: str) -> nn.Module:
        """With first weights, in eval mode, the same every time."""
        import transformers

        config = transformers.AutoConfig.for_model(kind, **{**self.sizes, **self.more})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model: nn.Module = getattr(transformers, self.head)(config)
        return model.eval()


_VISION = {"vision_config": {**IMAGE}, "text_config": {**PLAIN}, "projection_dim": 16}
_SQUEEZED = {**PLAIN, "embedding_size": 16, "q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 1}
_FUNNEL = {"vocab_size": 40, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 16, "n_head": 2, "d_head": 8}
_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}

TYPES: dict[str, Tiny] = {
    # text, one direction of reading
    "bert": Tiny("BertForSequenceClassification", PLAIN),
    "roberta": Tiny("RobertaForMaskedLM", PLAIN),
    "distilbert": Tiny(
        "DistilBertForSequenceClassification",
        {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    ),
    "albert": Tiny("AlbertModel", PLAIN, more={"embedding_size": 8}),
    "electra": Tiny("ElectraForPreTraining", PLAIN, more={"embedding_size": 8}),
    "deberta": Tiny("DebertaModel", PLAIN, more={"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": Tiny("DebertaV2Model", PLAIN, more={"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "camembert": Tiny("CamembertForTokenClassification", PLAIN),
    "xlm-roberta": Tiny("XLMRobertaForQuestionAnswering", PLAIN),
    "mpnet": Tiny("MPNetModel", PLAIN),
    "mobilebert": Tiny(
        "MobileBertModel",
        PLAIN,
        more={"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    ),
    "squeezebert": Tiny("SqueezeBertModel", _SQUEEZED, more={"intermediate_groups": 1, "output_groups": 1}),
    "layoutlm": Tiny("LayoutLMModel", PLAIN, text_with_boxes),
    "xlnet": Tiny("XLNetModel", {"vocab_size": 40, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}),
    "funnel": Tiny("FunnelModel", _FUNNEL, more={"d_inner": 32}),
    "longformer": Tiny("LongformerModel", PLAIN, more={"attention_window": [4, 4]}),
    "roformer": Tiny("RoFormerModel", PLAIN, more={"embedding_size": 16}),
    "ernie": Tiny("ErnieModel", PLAIN),
    "modernbert": Tiny("ModernBertModel", PLAIN, more={"cls_token_id": 1, "sep_token_id": 2}),
    # text, written on and on
    "gpt2": Tiny("GPT2LMHeadModel", N_NAMES, generates=True),
    "gpt_neo": Tiny(
        "GPTNeoForCausalLM",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 32,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        generates=True,
    ),
    "gpt_neox": Tiny("GPTNeoXForCausalLM", PLAIN, generates=True),
    "gptj": Tiny("GPTJForCausalLM", N_NAMES, more={"rotary_dim": 4}, generates=True),
    "opt": Tiny(
        "OPTForCausalLM",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 32,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 64,
        },
        generates=True,
    ),
    "bloom": Tiny("BloomForCausalLM", {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2}, generates=True),
    "llama": Tiny("LlamaForCausalLM", GROUPED, generates=True),
    "mistral": Tiny("MistralForCausalLM", GROUPED, generates=True),
    "mixtral": Tiny("MixtralForCausalLM", GROUPED, more={"num_local_experts": 2}, generates=True),
    "qwen2": Tiny("Qwen2ForCausalLM", GROUPED, generates=True),
    "qwen3": Tiny("Qwen3ForCausalLM", GROUPED, more={"head_dim": 8}, generates=True),
    "gemma": Tiny("GemmaForCausalLM", GROUPED, more={"head_dim": 8}, generates=True),
    "gemma2": Tiny("Gemma2ForCausalLM", GROUPED, more={"head_dim": 8}, generates=True),
    "phi": Tiny("PhiForCausalLM", PLAIN, generates=True),
    "phi3": Tiny("Phi3ForCausalLM", GROUPED, generates=True),
    "olmo": Tiny("OlmoForCausalLM", GROUPED, generates=True),
    "cohere": Tiny("CohereForCausalLM", GROUPED, generates=True),
    "stablelm": Tiny("StableLmForCausalLM", GROUPED, generates=True),
    "starcoder2": Tiny("Starcoder2ForCausalLM", GROUPED, generates=True),
    "falcon": Tiny("FalconForCausalLM", PLAIN, generates=True),
    "mpt": Tiny("MptForCausalLM", {"vocab_size": 40, "d_model": 16, "n_layers": 2, "n_heads": 2}, generates=True),
    "mamba": Tiny("MambaForCausalLM", PLAIN, more={"state_size": 4}, generates=True),
    # text to text
    "t5": Tiny("T5ForConditionalGeneration", T5_LIKE, two_texts, generates=True),
    "mt5": Tiny("MT5ForConditionalGeneration", T5_LIKE, two_texts, generates=True),
    "umt5": Tiny("UMT5ForConditionalGeneration", T5_LIKE, two_texts, generates=True),
    "bart": Tiny("BartForConditionalGeneration", D_MODEL, two_texts, generates=True),
    "mbart": Tiny("MBartForConditionalGeneration", D_MODEL, two_texts, generates=True),
    "pegasus": Tiny("PegasusForConditionalGeneration", D_MODEL, two_texts, generates=True),
    "marian": Tiny("MarianMTModel", D_MODEL, two_texts, more={"decoder_vocab_size": 40}, generates=True),
    "blenderbot": Tiny("BlenderbotForConditionalGeneration", D_MODEL, two_texts, generates=True),
    "m2m_100": Tiny("M2M100ForConditionalGeneration", D_MODEL, two_texts, generates=True),
    # sound
    "whisper": Tiny(
        "WhisperForConditionalGeneration",
        D_MODEL,
        spectrum_and_text,
        more={
            "num_mel_bins": 4,
            "max_source_positions": 8,
            "max_target_positions": 64,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        generates=True,
    ),
    "wav2vec2": Tiny("Wav2Vec2Model", SOUND, sound),
    "hubert": Tiny("HubertModel", SOUND, sound),
    # images
    "vit": Tiny("ViTForImageClassification", IMAGE, image),
    "deit": Tiny("DeiTModel", IMAGE, image),
    "beit": Tiny("BeitModel", IMAGE, image),
    "dinov2": Tiny("Dinov2Model", IMAGE, image),
    "swin": Tiny(
        "SwinModel",
        {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "image_size": 16, "patch_size": 4},
        image,
    ),
    "convnext": Tiny("ConvNextModel", _STAGES, large_image),
    "resnet": Tiny("ResNetModel", _STAGES, large_image, more={"embedding_size": 8}),
    "segformer": Tiny(
        "SegformerForImageClassification",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "num_attention_heads": [1, 2],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
        },
        large_image,
    ),
    # texts and images
    "clip": Tiny("CLIPModel", _VISION, text_and_image),
    "siglip": Tiny(
        "SiglipModel", {"vision_config": {**IMAGE}, "text_config": {**PLAIN, "projection_size": 16}}, text_and_image
    ),
}
"""model type -> how a tiny one is made"""
