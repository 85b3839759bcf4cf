"""One range of latents: everything known about each, packed into the blocks of one file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from mohole import config
from mohole.catalogue.blocks import Columns, pack
from mohole.catalogue.codes import CodeStore
from mohole.catalogue.commits import commit
from mohole.catalogue.evidence import Examples, along, gather
from mohole.catalogue.layout import FEATURES_PER_BLOCK, INDEX, features_file
from mohole.catalogue.neighbours import nearest
from mohole.catalogue.sources import Sources
from mohole.catalogue.together import Together
from mohole.catalogue.vocabulary import promoted_and_suppressed
from mohole.storage import open_storage
from mohole.store.commits import is_committed
from mohole.store.latent_index import Entries, EntryIds, LatentIndex, joined
from mohole.tensors import open_tensors, tensor_bytes

Int64 = NDArray[np.int64]

RANGES, COLUMNS, DRIVER_FILE = "ranges", "columns", "driver.safetensors"
_ENTRIES_AT_ONCE = 1 << 22
"""A range with fewer is read once and kept; of a larger one so many are held at a time, and it is read three times."""


@dataclass(frozen=True)
class RangeTask:
    """Make the features of latents `first` to before `last`."""

    name: str
    number: int
    sources: Sources
    first: int
    last: int
    n_entries: int
    ids: EntryIds
    rows_of_parts: tuple[int, ...]
    settings: config.Catalogue
    seed: int
    out: str


def run_range(task: RangeTask) -> None:
    """In a worker: make a range and commit it; nothing where that is done already."""
    out = open_storage(task.out)
    if is_committed(out, RANGES, task.name):
        return
    assert out.local is not None
    driver = open_tensors(out.local / DRIVER_FILE)
    pieces = _Pieces(LatentIndex(out.folder(INDEX), task.ids), task)
    columns, examples = gather(
        pieces, task.first, task.last, task.sources.corpus(), driver["twins"], task.settings, seed=task.seed
    )
    firing_starts, places, values = along(pieces, task.first, examples)
    columns |= _directions(task, np.array(driver["seen"]))
    codes = CodeStore(out.local, task.rows_of_parts)
    columns |= _together(codes, task, driver["counted_tokens"], driver["counts_there"])
    offsets, n_bytes, data = _blocks(columns, examples, firing_starts, places, values)
    out.put(features_file(task.number), data)
    kept = {name: columns[name] for name in ("count", "sum", "maximum", "neighbour", "cosine")}
    header = {"offset": offsets, "n_bytes": n_bytes}
    columns_file = f"{COLUMNS}/{task.name}.safetensors"
    out.put(columns_file, tensor_bytes(kept | header))
    made = {"n_bytes": len(data), "digest": xxhash.xxh3_128_hexdigest(data)}
    commit(out, RANGES, task.name, made, [features_file(task.number), columns_file])
    out.close()


class _Pieces:
    """The entries of the range, from memory or from the index."""

    def __init__(self, index: LatentIndex, task: RangeTask) -> None:
        self._index, self._task = index, task
        fits = task.n_entries <= _ENTRIES_AT_ONCE
        self._kept = [joined(list(index.between(task.first, task.last)))] if fits else None

    def __call__(self) -> Iterable[Entries]:
        if self._kept is not None:
            return [piece for piece in self._kept if len(piece.token)]
        return self._read()

    def _read(self) -> Iterator[Entries]:
        held: list[Entries] = []
        n_held = 0
        for piece in self._index.between(self._task.first, self._task.last):
            held.append(piece)
            n_held += len(piece.token)
            if n_held >= _ENTRIES_AT_ONCE:
                yield joined(held)
                held, n_held = [], 0
        if held:
            yield joined(held)


def _directions(task: RangeTask, seen: Int64) -> Columns:
    """What the decoder says: vocabulary entries and neighbours."""
    dictionary, settings = task.sources.dictionary(), task.settings
    ids, logits = promoted_and_suppressed(
        task.sources.model(), dictionary, seen, settings.promoted, first=task.first, last=task.last
    )
    directions = dictionary.directions(torch.arange(dictionary.n_latents))
    neighbours, cosines = nearest(directions, task.first, task.last, settings.neighbours)
    return {"vocabulary_id": ids, "vocabulary_logit": logits, "neighbour": neighbours, "cosine": cosines}


def _together(codes: CodeStore, task: RangeTask, counted: Int64, counts: Int64) -> Columns:
    """Which latents fire at the same tokens, over the tokens on which that is counted."""
    both = Together(task.first, task.last, task.ids.n_latents)
    for part in codes.parts():
        rows = np.flatnonzero(np.isin(part.tokens, counted, assume_unique=True))
        if len(rows) == len(part.tokens):
            both.add(part.row_starts, part.latents)
        elif len(rows):
            sizes = np.diff(part.row_starts)[rows]
            at = np.repeat(part.row_starts[rows] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
            both.add(np.concatenate([[0], np.cumsum(sizes)]), part.latents[at])
    latents, n_together, phi = both.top(counts, len(counted), task.settings.together)
    return {"together": latents, "n_together": n_together, "phi": phi}


def _blocks(
    columns: Columns, examples: Examples, firing_starts: Int64, places: Int64, values: NDArray[np.float32]
) -> tuple[Int64, Int64, bytes]:
    """Where each latent's block begins in the file, its length, and the file."""
    n = len(columns["count"])
    offsets, lengths, blocks = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), []
    at = 0
    for low in range(0, n, FEATURES_PER_BLOCK):
        high = min(low + FEATURES_PER_BLOCK, n)
        first, last = np.searchsorted(examples.latent, [low, high])
        inside = slice(int(firing_starts[first]), int(firing_starts[last]))
        whose = np.repeat(examples.latent[first:last], np.diff(firing_starts[first : last + 1]))
        block = {name: column[low:high] for name, column in columns.items() if name not in _IN_HEADER}
        block |= {
            "n_examples": np.bincount(examples.latent[first:last] - low, minlength=high - low),
            "example_interval": examples.interval[first:last],
            "example_token": examples.token[first:last],
            "example_before": examples.token[first:last] - examples.start[first:last],
            "example_length": examples.end[first:last] - examples.start[first:last],
            "n_firings": np.diff(firing_starts[first : last + 1]),
            "firing_place": places[inside],
            "firing_share": _shares(values[inside], columns["maximum"][whose]),
        }
        block |= {name: column.astype(np.float16) for name, column in block.items() if column.dtype == np.float32}
        packed = pack(block)
        offsets[low:high], lengths[low:high] = at, len(packed)
        blocks.append(packed)
        at += len(packed)
    return offsets, lengths, b"".join(blocks)


def _shares(values: NDArray[np.float32], maximum: NDArray[np.float32]) -> NDArray[np.float16]:
    """Of the maximum. Never 0, which is silence: beside a maximum 2^25 times as large a firing would be rounded to it."""
    return np.maximum((values / maximum).astype(np.float16), np.finfo(np.float16).smallest_subnormal)


_IN_HEADER = ("count", "sum", "maximum")
