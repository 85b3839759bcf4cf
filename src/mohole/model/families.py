"""Where each family of models keeps its blocks, and which module's output is really added to the residual stream. A table.

How to add a family: find its `modeling_<family>.py` in transformers, write down

  1. the path of the list of blocks, and of the modules between the last block and the vocabulary (`final`);
  2. for attention and MLP, the module *inside the block* whose output is the vector that is added to the stream: after any
     post-norm (Gemma 2, OLMo 2), before the residual itself is added (BLOOM's modules add it: use the projection inside);
  3. any multiplier that the block applies to that output (Granite), to the embedding, or to the logits;

then add a row to FAMILIES and a tiny config to tests/model/conftest.py. The self-test, which runs on every load, refuses a
wrong row. A family that is not in the table is tried with every layout below, and accepted only if the self-test proves one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from mohole.errors import ModelError
from mohole.model.hookpoints import Hookpoint, all_hookpoints
from mohole.model.hooks import Site


@dataclass(frozen=True, slots=True)
class Layout:
    """Module paths of a family. Paths of `attn_out`, `mlp_in`, `mlp_out` are inside a block, the others inside the model."""

    blocks: str = "model.layers"
    final: tuple[str, ...] = ("model.norm",)  # from the last block to the unembedding; those that are None are skipped
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
GPT2 = Layout(blocks="transformer.h", final=("transformer.ln_f",), attn_out="attn")
NEOX = Layout(blocks="gpt_neox.layers", final=("gpt_neox.final_layer_norm",), attn_out="attention")
FALCON = replace(GPT2, attn_out="self_attention")
BLOOM = replace(
    GPT2,
    attn_out="self_attention.dense",
    mlp_out="mlp.dense_4h_to_h",
    embed=("transformer.word_embeddings_layernorm",),
)
MPT = Layout(
    blocks="transformer.blocks", final=("transformer.norm_f",), attn_out="attn", mlp_in="ffn", mlp_out="ffn.down_proj"
)
OPT = Layout(
    blocks="model.decoder.layers",
    final=("model.decoder.final_layer_norm", "model.decoder.project_out"),
    mlp_in="fc1",
    mlp_out="fc2",
    embed=("model.decoder.embed_tokens", "model.decoder.project_in"),
)

FAMILIES: dict[str, Layout] = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo", "starcoder2", "stablelm"], LLAMA),
    **dict.fromkeys(["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"], LLAMA),
    **dict.fromkeys(["gemma2", "gemma3_text", "olmo2", "olmo3"], SANDWICH),
    **dict.fromkeys(["gpt2", "gptj", "gpt_neo", "codegen", "gpt_bigcode"], GPT2),
    "phi": replace(LLAMA, final=("model.final_layernorm",)),
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
    "xglm": replace(LLAMA, final=("model.layer_norm",), mlp_in="fc1", mlp_out="fc2"),
}


def layouts_for(model_type: str) -> Sequence[Layout]:
    """The family's own layout, or for a family not in the table every layout, to be tried against the self-test."""
    return [FAMILIES[model_type]] if model_type in FAMILIES else list(dict.fromkeys(FAMILIES.values()))


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A loaded model's hookpoints and head, as modules."""

    n_layers: int
    sites: dict[str, Site]
    final: tuple[nn.Module, ...]
    unembedding: nn.Module
    logit_scale: float
    logit_softcap: float | None

    def unembed(self, rows: Tensor) -> Tensor:
        """What the model does to the stream leaving its last block: final norm, projection, logit scale and soft cap."""
        for module in self.final:
            rows = module(rows)
        logits: Tensor = self.unembedding(rows)
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.logit_softcap is not None:
            logits = (logits / self.logit_softcap).tanh() * self.logit_softcap
        return logits


def find_anatomy(hf: nn.Module, config: Any, layout: Layout) -> Anatomy:
    """Find the layout's modules in a model of transformers. `config` is the text model's config.

    Raises:
        ModelError: a module or number that the layout names is not there.
    """
    blocks = _module(hf, layout.blocks)
    if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0:
        raise ModelError(f"{layout.blocks}: no list of blocks in {type(hf).__name__}")
    paths = [path for path in layout.embed if _optional(hf, path) is not None]
    embedding = _module(hf, paths[-1]) if paths else hf.get_input_embeddings()  # type: ignore[operator]  # PreTrainedModel
    unembedding = hf.get_output_embeddings()  # type: ignore[operator]  # PreTrainedModel
    if not isinstance(unembedding, nn.Module):
        raise ModelError(f"{type(hf).__name__} has no output embedding (lm_head), so it predicts no next token")
    sites = {"embed": Site(embedding, "output", _number(config, layout.embed_scale))}
    for point in all_hookpoints(len(blocks)):
        if point.layer is not None:
            sites[str(point)] = _block_site(blocks[point.layer], point, layout)
    final = tuple(module for module in (_optional(hf, path) for path in layout.final) if module is not None)
    return Anatomy(
        n_layers=len(blocks),
        sites=sites,
        final=final,
        unembedding=unembedding,
        logit_scale=_number(config, layout.logit_multiplier) / _number(config, layout.logit_divisor),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _block_site(block: nn.Module, point: Hookpoint, layout: Layout) -> Site:
    branch_scale = _number(block, layout.branch_scale)
    sides: dict[str, tuple[str, Literal["input", "output"], float]] = {
        "resid_pre": ("", "input", 1.0),
        "attn_out": (layout.attn_out, "output", branch_scale),
        "mlp_in": (layout.mlp_in, "input", 1.0),
        "mlp_out": (layout.mlp_out, "output", branch_scale),
        "resid_post": ("", "output", 1.0),
    }
    path, side, scale = sides[point.kind]
    return Site(_module(block, path), side, scale)


def _module(root: nn.Module, path: str) -> nn.Module:
    found = _optional(root, path)
    if found is None:
        raise ModelError(f"{path}: {type(root).__name__} has no such module")
    return found


def _optional(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a path; None where the model has the name but no module behind it (a switched-off norm)."""
    found: object = root
    for name in path.split(".") if path else []:
        if not hasattr(found, name):
            raise ModelError(f"{path}: {type(root).__name__} has no such module")
        found = getattr(found, name)
    return found if isinstance(found, nn.Module) else None


def _number(owner: object, name: str | None) -> float:
    if name is None:
        return 1.0
    value = getattr(owner, name, None)
    if not isinstance(value, int | float) or value == 0:
        raise ModelError(f"{name}: {type(owner).__name__} has no such multiplier, or it is zero ({value!r})")
    return float(value)
