"""Tiny models of many families, made offline with random weights: a test that takes `family` runs on each of them.

Sizes are small and uneven (3 layers, 2 or 4 heads, d_model 32, 96 tokens) so that swapped axes cannot go unseen.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from mohole.model import LanguageModel, new_model

_LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_NO_HEAD_DIM = {key: value for key, value in _LLAMA.items() if key != "head_dim"}
_GPT2 = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "vocab_size": 96,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEOX = {key: value for key, value in _NO_HEAD_DIM.items() if key != "num_key_value_heads"}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_OPT = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "vocab_size": 96,
    "max_position_embeddings": 64, "word_embed_proj_dim": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_FALCON = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 96, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
_GRANITE = {
    "residual_multiplier": 0.22,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "attention_multiplier": 0.1,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", **_GPT2},
    "gpt_bigcode": {"model_type": "gpt_bigcode", **_GPT2},
    "gptj": {"model_type": "gptj", **_GPT2, "rotary_dim": 4},
    "codegen": {"model_type": "codegen", **_GPT2, "rotary_dim": 4},
    "gpt_neo": {
        "model_type": "gpt_neo", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 96, "bos_token_id": 1,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 64, "eos_token_id": 2,
    },
    "gpt_neox": {"model_type": "gpt_neox", **_NEOX},
    "gpt_neox_sequential": {"model_type": "gpt_neox", **_NEOX, "use_parallel_residual": False},
    "llama": {"model_type": "llama", **_LLAMA},
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": 4},
    "qwen2": {"model_type": "qwen2", **_NO_HEAD_DIM},
    "qwen3": {"model_type": "qwen3", **_LLAMA},
    "gemma": {"model_type": "gemma", **_LLAMA},
    "gemma2": {"model_type": "gemma2", **_LLAMA, "final_logit_softcapping": 0.5, "sliding_window": 4},
    "gemma3_text": {"model_type": "gemma3_text", **_LLAMA, "sliding_window": 4},
    "phi": {"model_type": "phi", **_NO_HEAD_DIM},
    "phi3": {"model_type": "phi3", **_NO_HEAD_DIM},
    "olmo": {"model_type": "olmo", **_NO_HEAD_DIM},
    "olmo2": {"model_type": "olmo2", **_NO_HEAD_DIM},
    "glm4": {"model_type": "glm4", **_LLAMA},
    "starcoder2": {"model_type": "starcoder2", **_NO_HEAD_DIM},
    "stablelm": {"model_type": "stablelm", **_NO_HEAD_DIM},
    "stablelm_parallel": {"model_type": "stablelm", **_NO_HEAD_DIM, "use_parallel_residual": True},
    "cohere": {"model_type": "cohere", **_NO_HEAD_DIM, "logit_scale": 0.25},
    "hyperclovax": {
        "model_type": "hyperclovax", **_NO_HEAD_DIM, "residual_multiplier": 0.5, "embedding_multiplier": 3.0,
        "logits_scaling": 2.0, "use_post_norm": True,
    },
    "cohere2": {"model_type": "cohere2", **_NO_HEAD_DIM, "logit_scale": 0.25, "sliding_window": 4},
    "olmo3": {"model_type": "olmo3", **_NO_HEAD_DIM, "sliding_window": 4},
    "gemma3": {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **_LLAMA, "sliding_window": 4},
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4, "image_token_index": 95, "boi_token_index": 94, "eoi_token_index": 93,
    },
    "qwen2_moe": {
        "model_type": "qwen2_moe", **_NO_HEAD_DIM, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_moe": {"model_type": "qwen3_moe", **_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "olmoe": {"model_type": "olmoe", **_NO_HEAD_DIM, "num_experts": 4, "num_experts_per_tok": 2},
    "granite": {"model_type": "granite", **_NO_HEAD_DIM, **_GRANITE},
    "granitemoe": {"model_type": "granitemoe", **_NO_HEAD_DIM, **_GRANITE, **_EXPERTS},
    "mixtral": {"model_type": "mixtral", **_LLAMA, **_EXPERTS},
    "gpt_oss": {"model_type": "gpt_oss", **_LLAMA, **_EXPERTS, "sliding_window": 4},
    "opt": {"model_type": "opt", **_OPT},
    "opt_projected": {"model_type": "opt", **_OPT, "word_embed_proj_dim": 16},
    "opt_no_final_norm": {"model_type": "opt", **_OPT, "_remove_final_layer_norm": True},
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 3, "n_head": 4, "vocab_size": 96},
    "falcon": {"model_type": "falcon", **_FALCON},
    "falcon_two_norms": {"model_type": "falcon", **_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon_sequential": {"model_type": "falcon", **_FALCON, "parallel_attn": False, "alibi": True},
    "mpt": {"model_type": "mpt", "d_model": 32, "n_layers": 3, "n_heads": 4, "vocab_size": 96, "max_seq_len": 64},
    "xglm": {
        "model_type": "xglm", "d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 48, "vocab_size": 96,
        "max_position_embeddings": 64,
    },
}  # fmt: skip
"""Families of mohole's table, with the variants whose blocks differ."""

UNLISTED: dict[str, dict[str, Any]] = {
    "smollm3": {"model_type": "smollm3", **_NO_HEAD_DIM},
    "helium": {"model_type": "helium", **_LLAMA},
    "exaone4": {"model_type": "exaone4", **_NO_HEAD_DIM, "sliding_window": 4},
}
"""Families that are not in the table and fit one of its layouts."""


def roughen(module: nn.Module, seed: int) -> None:
    """Give norms, biases and everything else a life of their own: fresh norms are all ones, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


@cache
def _tiny(family: str) -> LanguageModel:
    model = new_model((FAMILIES | UNLISTED)[family], seed=0, name=family, self_test=family in UNLISTED)
    roughen(model.hf, seed=1)
    return model


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", [*FAMILIES, *UNLISTED])


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], LanguageModel]:
    """A tiny random model of a family, its self-test not yet run. Shared between tests: leave it as it is."""
    return _tiny


@pytest.fixture(scope="session")
def config_of() -> Callable[[str], dict[str, Any]]:
    """The tiny config of a family."""
    return lambda family: dict((FAMILIES | UNLISTED)[family])


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two sequences of 9 tokens, neither special."""
    return torch.randint(10, 90, (2, 9), generator=torch.Generator().manual_seed(3))
