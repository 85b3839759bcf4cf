"""Hookpoints in other libraries' words and in mohole's. Text only; a name that means no hookpoint of mohole's is kept as it is.

TransformerLens: blocks.6.hook_resid_post. Modules of transformers: model.layers.6, transformer.h.6.mlp. dictionary_learning:
resid_post_layer_6. A module's output is read for a plain path; `.input` and `.output` behind it are understood.
"""

import re

_TRANSFORMER_LENS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "z",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_in": "mlp_in",
    "mlp.hook_out": "mlp_out",
}
_MODULES = {
    "": "resid_post",
    ".output": "resid_post",
    ".input": "resid_pre",
    ".mlp": "mlp_out",
    ".mlp.output": "mlp_out",
    ".mlp.input": "mlp_in",
    ".pre_feedforward_layernorm.output": "mlp_in",
    ".post_feedforward_layernorm.output": "mlp_out",
    ".self_attn": "attn_out",
    ".attn": "attn_out",
    ".attention": "attn_out",
}
_BLOCKS = re.compile(r"(?:(?:model\.|language_model\.|transformer\.|gpt_neox\.)*)(?:layers|h)\.(\d{1,9})(.*)")
_EMBEDDINGS = ("embed", "hook_embed", "embed_tokens", "model.embed_tokens", "wte", "transformer.wte", "embed_in")
_OURS = re.compile(r"(resid_pre|z|attn_out|mlp_in|mlp_out|resid_post)\.(\d{1,9})")


def to_mohole(name: str) -> str:
    """
    >>> [to_mohole(name) for name in ("blocks.6.hook_resid_post", "layers.3.mlp", "model.layers.2.output", "hook_embed")]
    ['resid_post.6', 'mlp_out.3', 'resid_post.2', 'embed']
    >>> to_mohole("blocks.7.ln2.hook_normalized")
    'blocks.7.ln2.hook_normalized'
    """
    if name in _EMBEDDINGS:
        return "embed"
    if (found := re.fullmatch(r"blocks\.(\d{1,9})\.(.+)", name)) and found[2] in _TRANSFORMER_LENS:
        return f"{_TRANSFORMER_LENS[found[2]]}.{int(found[1])}"
    if (found := _BLOCKS.fullmatch(name)) and found[2] in _MODULES:
        return f"{_MODULES[found[2]]}.{int(found[1])}"
    if found := re.fullmatch(r"(resid_pre|resid_post|mlp_out|attn_out)_layer_(\d{1,9})", name):
        return f"{found[1]}.{int(found[2])}"
    return name


def to_transformer_lens(name: str) -> str:
    """
    >>> to_transformer_lens("resid_post.6"), to_transformer_lens("mlp_in.2"), to_transformer_lens("embed")
    ('blocks.6.hook_resid_post', 'blocks.2.mlp.hook_in', 'hook_embed')
    """
    if name == "embed":
        return "hook_embed"
    if found := _OURS.fullmatch(name):
        inside = {"mlp_in": "mlp.hook_in", "z": "attn.hook_z"}
        return f"blocks.{found[2]}.{inside.get(found[1], f'hook_{found[1]}')}"
    return name


def layer_of(name: str) -> int | None:
    """The layer in a name of mohole's or TransformerLens's.

    >>> layer_of("mlp_out.3"), layer_of("blocks.12.ln2.hook_normalized"), layer_of("embed")
    (3, 12, None)
    """
    found = re.search(r"(?:^blocks\.|\.)(\d{1,9})(?:\.|$)", name)
    return int(found[1]) if found else None
