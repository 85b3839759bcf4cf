"""The model card of a dictionary on the hub: what it is, how it was made, how well it does and how to load it. Text only."""

import json
from collections.abc import Mapping
from typing import Any, assert_never

from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.files import AnyDictionary, kind_of
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.row_norm import LayerNorm, LengthNorm, RowNorm
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.version import __version__
from mohole.visible import visible

_LIBRARIES = {"saelens": "saelens", "sparsify": "sparsify"}
"""The hub's own names of libraries, where it has one."""
_LOADING = {
    "mohole": 'import mohole\n\ndictionary = mohole.load_dictionary("{repository}", allow_download=True)',
    "saelens": (
        "from huggingface_hub import snapshot_download\nfrom sae_lens import SAE\n\n"
        'sae = SAE.load_from_disk(snapshot_download("{repository}"))'
    ),
    "sparsify": 'from sparsify import SparseCoder\n\nsae = SparseCoder.load_from_hub("{repository}")',
    "dictionary-learning": (
        "from dictionary_learning.utils import load_dictionary\nfrom huggingface_hub import snapshot_download\n\n"
        'dictionary, config = load_dictionary(snapshot_download("{repository}"), device="cpu")'
    ),
    "circuit-tracer": (
        "from circuit_tracer.utils.hf_utils import load_transcoder_from_hub\n\n"
        'transcoders, config = load_transcoder_from_hub("{repository}")'
    ),
}

_LAST = ("step", "rows", "fvu", "l0", "dead", "ce_recovered", "excess_ce")
"""What of a record's line says how well a dictionary does."""


def model_card(
    dictionary: AnyDictionary,
    repository: str,
    to: str,
    *,
    training: Mapping[str, Any],
    measures: Mapping[str, Any] | None = None,
    model: str | None = None,
    recorded: str | None = None,
    last_line: Mapping[str, Any] | None = None,
) -> str:
    """The README.md of a repository.

    Args:
        training: what is known of the making; may be empty.
        measures: the table of that name in `evaluation.json`: each number with its unit, interval and masks.
        model: the language model that it is of, as on the hub; None: nobody said.
        recorded: the same by the name that its training had for it, which may be that of a folder.
        last_line: of the record of its training.
    """
    parts = [
        _head(to, model or (recorded if recorded and "/" in recorded else None)),
        f"# {repository}",
        _what(dictionary),
        _shapes(dictionary, model or recorded),
        _loading(repository, to),
    ]
    if measures:
        parts.append(_measures(measures))
    if last_line:
        parts.append(_last_line(last_line))
    if training:
        parts.append(_training(training))
    parts.append(f"Written by mohole {__version__}.")
    return "\n\n".join(parts) + "\n"


def _head(to: str, model: str | None) -> str:
    tags = ["mohole", "sparse-autoencoder", "interpretability", *([to] if to != "mohole" else [])]
    base = [f"base_model: {json.dumps(visible(model))}"] if model is not None else []
    lines = [
        "---",
        *base,
        f"library_name: {_LIBRARIES.get(to, 'mohole')}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    return "\n".join(lines)


def _what(dictionary: AnyDictionary) -> str:
    match dictionary:
        case SparseAutoencoder():
            law = "f = act((x - b_dec) W_enc^T + b_enc), x^ = f W_dec + b_dec"
            return f"A sparse autoencoder of `{_cell(dictionary.hookpoint)}`: {law}."
        case NormalisedAutoencoder(row_norm=row_norm):
            law = "f = act((z - b_dec) W_enc^T + b_enc), x^ = (f W_dec + b_dec) s + m"
            place = f"`{_cell(dictionary.hookpoint)}`"
            return f"A sparse autoencoder of {place} that normalises each row by itself: {_row_norm(row_norm)}, {law}."
        case Transcoder():
            skip = " + x W_skip^T" if dictionary.W_skip is not None else ""
            ends = f"`{_cell(dictionary.reads)}` to `{_cell(dictionary.writes)}`"
            return f"A transcoder from {ends}: f = act(x W_enc^T + b_enc), y^ = f W_dec + b_dec{skip}."
        case Crosscoder():
            return f"A crosscoder of {', '.join(f'`{_cell(name)}`' for name in dictionary.hookpoints)}."
        case CrossLayerTranscoder():
            ends = f"`{_cell(dictionary.reads[0])}` ... `{_cell(dictionary.reads[-1])}`"
            law = "latents write to their own layer and all later ones"
            return f"A cross-layer transcoder of {len(dictionary.layers)} layers ({ends}): {law}."
        case _:
            assert_never(dictionary)


def _shapes(dictionary: AnyDictionary, model: str | None) -> str:
    own = dictionary.layers[0] if isinstance(dictionary, CrossLayerTranscoder) else dictionary.latents
    nonlinearity = own.nonlinearity.model_dump()
    settings = ", ".join(f"{key} {value}" for key, value in nonlinearity.items() if key not in ("kind", "bandwidth"))
    rows = [
        ("of the language model", model or "not recorded: ask who made it"),
        ("kind", kind_of(dictionary)),
        ("latents", f"{dictionary.n_latents:,}"),
        ("columns read", f"{own.W_enc.shape[1]:,}"),
        ("nonlinearity", nonlinearity["kind"] + (f", {settings}" if settings else "")),
        ("units", _units(dictionary)),
    ]
    return _table(("", ""), rows)


def _row_norm(row_norm: RowNorm) -> str:
    match row_norm:
        case LayerNorm(eps=eps):
            return f"m and s are its own mean and standard deviation (over d - 1), z = (x - m) / (s + {eps:g})"
        case LengthNorm():
            return "s is its own length / sqrt(d), m is 0, z = x / s"
        case _:
            assert_never(row_norm)


def _units(dictionary: AnyDictionary) -> str:
    if isinstance(dictionary, NormalisedAutoencoder):
        return "rows go in and come out as the model makes them; codes and decoder rows are in each row's own units"
    return "the model's own: rows go in as the model makes them"


def _loading(repository: str, to: str) -> str:
    text = "## Loading\n\n```python\n" + _LOADING[to].format(repository=repository) + "\n```"
    also = "\n\nmohole reads this format, too: `mohole.load_dictionary(...)`." if to != "mohole" else ""
    return (
        text
        + also
        + "\n\n`known_batch.safetensors` holds rows and their reconstruction; mohole checks them whenever it loads the weights."
    )


def _measures(measures: Mapping[str, Any]) -> str:
    rows = []
    for key, measure in measures.items():
        if not isinstance(measure, Mapping):
            continue
        masks = measure.get("masks") or {}
        interval = "" if measure.get("low") is None else f"{_number(measure['low'])} to {_number(measure.get('high'))}"
        shown = [str(measure.get("name", key)), _number(measure.get("value")), interval, str(measure.get("unit", ""))]
        shown += [f"{measure.get('n', '')} {measure.get('n_of', '')}".strip()]
        shown += [str(masks.get(name, "none")) for name in ("replaced", "counted", "scored")]
        rows.append(shown)
    head = ("measure", "value", "95 % interval", "unit", "over", "replaced", "counted", "scored")
    note = (
        "Replaced, counted and scored are the positions whose activation was swapped, whose rows were summed, and whose "
        "prediction was scored."
    )
    return f"## Measured on held-out documents\n\n{_table(head, rows)}\n\n{note}"


def _last_line(line: Mapping[str, Any]) -> str:
    rows = [(name, _number(line[name])) for name in _LAST if line.get(name) is not None]
    note = "Of one batch, or of a little held-out text where it is of the loss in the model; no measure of the whole."
    return f"## The last line of its training's record\n\n{_table(('', ''), rows)}\n\n{note}"


def _training(training: Mapping[str, Any]) -> str:
    rows = [(str(key), json.dumps(value, ensure_ascii=False)) for key, value in sorted(training.items())]
    return "## How it was made\n\n" + _table(("", ""), rows)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "undefined" if value is None else str(value)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """One line, with nothing that would end a cell or begin HTML."""
    return visible(" ".join(str(text).split())).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
