"""Where each family of models keeps its blocks, and which module's output is really added to the residual stream. A table.

How to add a family: find its `modeling_<family>.py` in transformers, write down

  1. the path of the list of blocks, and of the modules between the last block and the vocabulary (`final`);
  2. the linear map that mixes the heads' outputs (what goes into it is `z`), and for attention and MLP the module *inside the
     block* whose output is the vector that is added to the stream: after any post-norm (Gemma 2, OLMo 2), before the residual
     itself is added (BLOOM's modules add it: use the projection inside);
  3. any multiplier that the block applies to that output (Granite), to the embedding, or to the logits;

then add a row to FAMILIES and a tiny config to tests/model/conftest.py. The self-test, which runs on every load, refuses a
wrong row. A family that is not in the table is tried with every layout below, and accepted only if the self-test proves one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Layout:
    """Module paths of a family. Paths of `z`, `attn_out`, `mlp_in`, `mlp_out` are inside a block, the others inside the model."""

    blocks: str = "model.layers"
    final: tuple[str, ...] = ("model.norm",)  # from the last block to the unembedding; those that are None are skipped
    z: str | None = "self_attn.o_proj"  # this module's input is the heads' outputs, side by side; None: nowhere
    attn_out: str = "self_attn"  # this module's output is added to the stream
    mlp_in: str = "mlp"  # this module's input is what the MLP reads
    mlp_out: str = "mlp"  # this module's output is added to the stream
    embed: tuple[str, ...] = ()  # the last of these that exists gives `embed`; the input embedding if there is none
    branch_scale: str | None = None  # attribute of a block: both branches are multiplied by it before they are added
    embed_scale: str | None = None  # config key: the embedding is multiplied by it
    logit_multiplier: str | None = None  # config key
    logit_divisor: str | None = None  # config key


LLAMA = Layout()
SANDWICH = Layout(attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm")  # norms after each branch
GLM4 = Layout(attn_out="post_self_attn_layernorm", mlp_out="post_mlp_layernorm")
GRANITE = Layout(branch_scale="residual_multiplier", embed_scale="embedding_multiplier", logit_divisor="logits_scaling")
GPT2 = Layout(blocks="transformer.h", final=("transformer.ln_f",), z="attn.c_proj", attn_out="attn")
GPTJ = replace(GPT2, z="attn.out_proj")
NEOX = Layout(blocks="gpt_neox.layers", final=("gpt_neox.final_layer_norm",), z="attention.dense", attn_out="attention")
FALCON = replace(GPT2, z="self_attention.dense", attn_out="self_attention")
BLOOM = replace(
    GPT2,
    z="self_attention.dense",
    attn_out="self_attention.dense",
    mlp_out="mlp.dense_4h_to_h",
    embed=("transformer.word_embeddings_layernorm",),
)
MPT = Layout(
    blocks="transformer.blocks",
    final=("transformer.norm_f",),
    z="attn.out_proj",
    attn_out="attn",
    mlp_in="ffn",
    mlp_out="ffn.down_proj",
)
OPT = Layout(
    blocks="model.decoder.layers",
    final=("model.decoder.final_layer_norm", "model.decoder.project_out"),
    z="self_attn.out_proj",
    mlp_in="fc1",
    mlp_out="fc2",
    embed=("model.decoder.embed_tokens", "model.decoder.project_in"),
)

FAMILIES: dict[str, Layout] = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo", "starcoder2", "stablelm"], LLAMA),
    **dict.fromkeys(["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"], LLAMA),
    **dict.fromkeys(["gemma2", "gemma3_text", "olmo2", "olmo3"], SANDWICH),
    **dict.fromkeys(["gpt2", "gpt_bigcode"], GPT2),
    **dict.fromkeys(["gptj", "codegen"], GPTJ),
    "gpt_neo": replace(GPT2, z="attn.attention.out_proj"),
    "phi": replace(LLAMA, final=("model.final_layernorm",), z="self_attn.dense"),
    "cohere": replace(LLAMA, logit_multiplier="logit_scale"),
    "cohere2": replace(LLAMA, logit_multiplier="logit_scale"),
    "granite": GRANITE,
    "hyperclovax": replace(
        GRANITE, attn_out="post_norm1", mlp_out="post_norm2", logit_multiplier="logits_scaling", logit_divisor=None
    ),
    "granitemoe": replace(GRANITE, mlp_in="block_sparse_moe", mlp_out="block_sparse_moe"),
    "glm4": GLM4,
    "gemma3": replace(SANDWICH, blocks="model.language_model.layers", final=("model.language_model.norm",)),
    "gpt_neox": NEOX,
    "falcon": FALCON,
    "bloom": BLOOM,
    "mpt": MPT,
    "opt": OPT,
    "xglm": replace(LLAMA, final=("model.layer_norm",), z="self_attn.out_proj", mlp_in="fc1", mlp_out="fc2"),
}


def layouts_for(model_type: str) -> Sequence[Layout]:
    """The family's own layout, or for a family not in the table every layout, to be tried against the self-test."""
    return [FAMILIES[model_type]] if model_type in FAMILIES else list(dict.fromkeys(FAMILIES.values()))
