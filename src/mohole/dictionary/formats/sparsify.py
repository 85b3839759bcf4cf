"""sparsify (EleutherAI): `cfg.json` and `sae.safetensors` in a folder named after a module. Read and written.

    f = the k largest of relu((x [- b_dec]) encoder.weight^T + encoder.bias)        y^ = f W_dec + b_dec [+ x W_skip^T]

b_dec is subtracted unless `transcode`. The folder's name is the hookpoint: `layers.10` (its output), of a transcoder
`layers.10.mlp` (from what that module reads to what it puts out). Source: sparsify 1.3, sparse_coder.py.
"""

import re
from pathlib import Path

from mohole.config import TopK
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.foreign import Settings, read_json_settings, read_weights
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts
from mohole.dictionary.formats.imported import UNNAMED, Imported, Units
from mohole.dictionary.formats.write import NO_ROW_NORM, refuse, write_weights
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import Transcoder
from mohole.record import write_json

NAME = "sparsify"
CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def is_here(path: Path) -> bool:
    """Its two files are in the folder."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(folder: Path) -> Imported:
    """The sparse coder in a folder.

    Raises:
        ArtifactError: damaged, or with another activation than its top-k.
    """
    config = read_json_settings(folder / CONFIG)
    if config.text("activation", "topk") != "topk":
        raise config.wrong(
            "activation", "topk is understood: groups of latents that compete are no dictionary of mohole's"
        )
    if config.flag("signed", False):
        raise config.wrong("signed", "mohole's topk keeps positive activations only")
    weights = read_weights(folder / WEIGHTS, {"D": config.whole("d_in")} | _width(config))
    W_enc, b_enc = weights.take("encoder.weight", "F D"), weights.take("encoder.bias", "F")
    W_dec, b_dec = weights.take("W_dec", "F D"), weights.take("b_dec", "D")
    has_skip, transcodes = config.flag("skip_connection", False), config.flag("transcode", False)
    W_skip = weights.take("W_skip", "D D") if has_skip else None
    weights.finish()
    if (k := config.whole("k")) > len(W_enc):
        raise config.wrong("k", f"more than its {len(W_enc)} latents")
    parts, module = Parts(TopK(k=k), W_enc, b_enc, W_dec, b_dec), _module(folder)
    if transcodes:
        return Imported(parts.transcoder(*_ends(module), W_skip), NAME, Units(pre_bias=False))
    where = names.to_mohole(module)
    if has_skip:  # reads and writes one place; a transcoder subtracts nothing, so the bias does
        return Imported(parts.with_pre_bias(-1.0).transcoder(where, where, W_skip), NAME, Units(pre_bias=True))
    return Imported(parts.sae(where), NAME, Units(pre_bias=True))


def write(dictionary: AnyDictionary, folder: Path) -> None:
    """Write what SparseCoder.load_from_disk reads, of a topk dictionary.

    Raises:
        ArtifactError: another nonlinearity, or a transcoder between places of different width.
    """
    if isinstance(dictionary, NormalisedAutoencoder):
        raise refuse(NAME, dictionary, NO_ROW_NORM)
    if not isinstance(dictionary, SparseAutoencoder | Transcoder):
        raise refuse(NAME, dictionary, "it has sparse autoencoders and transcoders of one layer only")
    own = dictionary.latents
    if not isinstance(own.nonlinearity, TopK):
        raise refuse(NAME, dictionary, f"it has topk, not {own.nonlinearity.kind}")
    if own.W_enc.shape != own.W_dec.shape:
        raise refuse(
            NAME,
            dictionary,
            f"it reads {own.W_enc.shape[1]} columns and writes {own.W_dec.shape[1]}, there they are equal",
        )
    tensors = {"encoder.weight": own.W_enc, "encoder.bias": own.b_enc, "W_dec": own.W_dec, "b_dec": dictionary.b_dec}
    skip = dictionary.W_skip if isinstance(dictionary, Transcoder) else None
    if skip is not None:
        tensors["W_skip"] = skip
    write_weights(folder / WEIGHTS, tensors)
    config = {
        "activation": "topk", "d_in": own.W_enc.shape[1], "k": own.nonlinearity.k, "num_latents": own.n_latents,
        "expansion_factor": max(1, own.n_latents // own.W_enc.shape[1]), "normalize_decoder": False, "multi_topk": False,
        "skip_connection": skip is not None, "transcode": isinstance(dictionary, Transcoder),
    }  # fmt: skip
    write_json(folder / CONFIG, config)


def _width(config: Settings) -> dict[str, int]:
    """Latents, where the config says how many; 0 means d_in x expansion_factor."""
    if config.values.get("num_latents") not in (None, 0):
        return {"F": config.whole("num_latents")}
    return {"F": config.whole("d_in") * config.whole("expansion_factor")} if "expansion_factor" in config else {}


def _module(folder: Path) -> str:
    folder = folder.resolve()
    name = folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name
    return name if re.match(r"(layers|h|embed|model|transformer|gpt_neox|blocks|resid_|mlp_|attn_)", name) else UNNAMED


def _ends(module: str) -> tuple[str, str]:
    """What a transcoder of a module reads, and what it predicts."""
    writes = names.to_mohole(module)
    if re.fullmatch(r"mlp_out\.\d+", writes):
        return f"mlp_in.{names.layer_of(writes)}", writes
    return (UNNAMED if module == UNNAMED else f"{module}.input"), writes
