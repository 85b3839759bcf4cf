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
from typing import Any, Literal

from torch import Tensor, nn

from mohole.errors import ModelError
from mohole.model.hookpoints import Hookpoint, all_hookpoints
from mohole.model.hooks import Site


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


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A loaded model's hookpoints and head, as modules."""

    blocks: tuple[nn.Module, ...]
    """The layers, in order."""
    sites: dict[str, Site]
    heads: "Heads | str"
    """Of every layer alike; or why there is no `z`."""
    after_heads: tuple[tuple[nn.Module, ...], ...]
    """For each layer the modules from `z` to `attn_out`: the projection, and the norm behind it where there is one."""
    final: tuple[nn.Module, ...]
    unembedding: nn.Module
    logit_scale: float
    logit_softcap: float | None

    def project(self, layer: int, z: Tensor) -> Tensor:
        """What a layer's attention adds to the stream when its heads give `z`: projection, any norm, multiplier."""
        for module in self.after_heads[layer]:
            z = module(z)
        scale = self.sites[f"attn_out.{layer}"].scale
        return z if scale == 1.0 else z * scale

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


@dataclass(frozen=True, slots=True)
class Heads:
    """A layer's attention heads: how many there are, and how wide each one's output is."""

    n: int
    width: int


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
        if point.layer is not None and point.kind != "z":
            sites[str(point)] = _block_site(blocks[point.layer], point, layout)
    heads = _find_heads(list(blocks), config, layout)
    after_heads = []
    if isinstance(heads, Heads):
        for layer, block in enumerate(blocks):
            projection = _module(block, layout.z or "")
            sites |= _head_sites(projection, layer, heads)
            adds = sites[f"attn_out.{layer}"].module
            is_inside = any(module is projection for module in adds.modules())
            after_heads.append((projection,) if is_inside else (projection, adds))
    final = tuple(module for module in (_optional(hf, path) for path in layout.final) if module is not None)
    return Anatomy(
        blocks=tuple(blocks),
        sites=sites,
        heads=heads,
        after_heads=tuple(after_heads),
        final=final,
        unembedding=unembedding,
        logit_scale=_number(config, layout.logit_multiplier) / _number(config, layout.logit_divisor),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _find_heads(blocks: Sequence[nn.Module], config: Any, layout: Layout) -> Heads | str:
    """The heads, or why `z` cannot be offered: a family is not refused for it."""
    if layout.z is None:
        return "no module of it takes the heads' outputs and nothing else"
    n_heads = getattr(config, "num_attention_heads", None)
    if not isinstance(n_heads, int) or n_heads < 1:
        return f"its config gives no one number of heads ({n_heads!r})"
    widths = set()
    for layer, block in enumerate(blocks):
        try:
            projection = _module(block, layout.z)
        except ModelError:
            return f"layer {layer} has no {layout.z}"
        widths.add(getattr(projection, "in_features", getattr(projection, "nx", None)))  # nn.Linear, GPT-2's Conv1D
    width = widths.pop()
    if widths or not isinstance(width, int) or width % n_heads:
        return f"what its {layout.z} takes ({width} wide in layer 0) is not {n_heads} heads in every layer"
    return Heads(n_heads, width // n_heads)


def _head_sites(projection: nn.Module, layer: int, heads: Heads) -> dict[str, Site]:
    parts = {
        f"z.{layer}.{head}": Site(projection, "input", columns=slice(head * heads.width, (head + 1) * heads.width))
        for head in range(heads.n)
    }
    return {f"z.{layer}": Site(projection, "input")} | parts


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
