"""A loaded model's hookpoints and head, found as modules by its family's layout. The layouts themselves are in families.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from mohole.errors import ModelError
from mohole.model.families import Layout
from mohole.model.hookpoints import Hookpoint, all_hookpoints
from mohole.model.hooks import Site


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

    def without_z(self, reason: str) -> "Anatomy":
        """The same with no `z` in any layer, and why."""
        return replace(
            self, sites={name: site for name, site in self.sites.items() if not name.startswith("z.")}, heads=reason
        )

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
