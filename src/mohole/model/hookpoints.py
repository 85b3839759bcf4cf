"""Names of the places where a model's activations are read and written. Names only: no modules, no tensors.

    embed           what a token's identity adds to the residual stream
    resid_pre.L     the residual stream entering layer L
    z.L             the outputs of layer L's attention heads side by side, before the output projection mixes them
    z.L.H           head H's part of it
    attn_out.L      the vector that layer L's attention adds to the stream (after post-norms and multipliers)
    mlp_in.L        what layer L's MLP reads (after its norm)
    mlp_out.L       the vector that layer L's MLP adds to the stream (after post-norms and multipliers)
    resid_post.L    the residual stream leaving layer L; the same vector as resid_pre.L+1

TransformerLens names of the same places are accepted and translated (its `hook_z` has an axis for heads). Its `hook_mlp_in` is
another place (before the norm) and is refused.
"""

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from mohole.errors import HookpointError

Kind = Literal["embed", "resid_pre", "z", "attn_out", "mlp_in", "mlp_out", "resid_post"]

LAYER_KINDS: tuple[Kind, ...] = (
    "resid_pre",
    "z",
    "attn_out",
    "mlp_in",
    "mlp_out",
    "resid_post",
)  # in order of execution
_TRANSFORMER_LENS: dict[str, Kind] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "z",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
}


@dataclass(frozen=True, slots=True)
class Hookpoint:
    """A place in a model: a kind and, except for `embed`, a layer counted from 0. `str()` gives its name."""

    kind: Kind
    layer: int | None = None
    head: int | None = None
    """One attention head of `z`, counted from 0."""

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.kind, self.layer, self.head) if part is not None)

    @property
    def execution(self) -> tuple[int, int, int]:
        """Sorts hookpoints in order of execution; a layer's `z` stands before its heads."""
        if self.layer is None:
            return (-1, 0, 0)
        return (self.layer, LAYER_KINDS.index(self.kind), -1 if self.head is None else self.head)


def all_hookpoints(n_layers: int) -> list[Hookpoint]:
    """Every hookpoint of a model with `n_layers` layers but single heads, in order of execution."""
    return [Hookpoint("embed")] + [Hookpoint(kind, layer) for layer in range(n_layers) for kind in LAYER_KINDS]


def parse_hookpoint(name: str, *, n_layers: int | None = None, model: str = "the model") -> Hookpoint:
    """The hookpoint that `name` means, in mohole's or TransformerLens's words; checked against `n_layers` if given.

    >>> str(parse_hookpoint("blocks.6.hook_resid_post"))
    'resid_post.6'

    Raises:
        HookpointError: no such kind, no layer where one is needed, or a layer that the model does not have.
    """
    point = _read(name, model)
    if n_layers is not None and point.layer is not None and point.layer >= n_layers:
        plural = "layer" if n_layers == 1 else "layers"
        raise HookpointError(f"{name}: {model} has {n_layers} {plural} (0-{n_layers - 1}); {_list_them(model)}")
    return point


@lru_cache(maxsize=4096)  # every pass asks again
def _read(name: str, model: str) -> Hookpoint:
    if name in ("embed", "hook_embed"):
        return Hookpoint("embed")
    if match := re.fullmatch(r"blocks\.(\d+)\.((?:attn\.)?hook_\w+)", name):
        if kind := _TRANSFORMER_LENS.get(match[2]):
            return Hookpoint(kind, int(match[1]))
        raise HookpointError(_unknown_transformer_lens(name, match[1], match[2], model))
    kind_text, _, layer_text = name.partition(".")
    if kind_text in LAYER_KINDS:
        if re.fullmatch(r"\d+", layer_text):
            return Hookpoint(kind_text, int(layer_text))
        if kind_text == "z" and (match := re.fullmatch(r"(\d+)\.(\d+)", layer_text)):
            return Hookpoint(kind_text, int(match[1]), int(match[2]))
        raise HookpointError(
            f"{name}: {kind_text} needs a layer counted from 0, as in {kind_text}.0; {_list_them(model)}"
        )
    if kind_text == "embed":
        raise HookpointError(f"{name}: embed has no layer; write embed")
    raise HookpointError(f"{name}: no such hookpoint{_suggestion(kind_text, layer_text)}; {_list_them(model)}")


def _unknown_transformer_lens(name: str, layer: str, hook: str, model: str) -> str:
    if hook == "hook_mlp_in":
        return f"{name}: TransformerLens's mlp_in is before the norm, mohole's mlp_in.{layer} after it; name the one you mean"
    close = difflib.get_close_matches(hook, _TRANSFORMER_LENS, n=1, cutoff=0.6)
    hint = f"; did you mean {_TRANSFORMER_LENS[close[0]]}.{layer}?" if close else ""
    return f"{name}: no such hookpoint in mohole{hint}; {_list_them(model)}"


def _suggestion(kind_text: str, layer_text: str) -> str:
    close = difflib.get_close_matches(kind_text, get_args(Kind), n=1, cutoff=0.5)
    if not close:
        return ""
    layer = "" if close[0] == "embed" else f".{layer_text or 0}"
    return f"; did you mean {close[0]}{layer}?"


def _list_them(model: str) -> str:
    return f"`mohole show hookpoints {model}` lists them"
