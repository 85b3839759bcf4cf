"""The catalogue stage: sample -> codes by token -> index by latent -> features, range by range -> families and map -> header.

Each step is tasks that can be repeated and commit what they made, so a killed catalogue goes on where it was; tasks are cut
by the data and the settings alone, so any workers make the same bytes.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import config
from mohole.catalogue.blocks import Columns
from mohole.catalogue.codes import CodeStore
from mohole.catalogue.commits import commit, is_whole, run_missing
from mohole.catalogue.encode import ENCODE, RUNS, SAMPLE_FILE, EncodeTask, run_encode
from mohole.catalogue.families import families
from mohole.catalogue.features import COLUMNS, DRIVER_FILE, RANGES, RangeTask, run_range
from mohole.catalogue.header import write_header
from mohole.catalogue.layout import (
    DOCUMENTS_FILE,
    FACTS_FILE,
    FORMAT,
    HEADER,
    INDEX,
    LATENTS_PER_RANGE,
    PIECES_FILE,
    TASKS,
    TOKENS_PER_PART,
    part_name,
)
from mohole.catalogue.map import place
from mohole.catalogue.sample import Sample, choose, within
from mohole.catalogue.sources import Sources
from mohole.corpus import Corpus, first_twins
from mohole.execute import Cores, Executor, Task
from mohole.execute.inline import Inline
from mohole.metrics.matching import expected_max_cosine
from mohole.progress import Tracker, track
from mohole.storage import Storage, open_storage
from mohole.store.commits import is_committed
from mohole.store.latent_index import EntryIds, cell_bits_of, sort_runs
from mohole.store.listing import LAYOUT_FILE, SHARDS
from mohole.store.plan import Limits
from mohole.store.shard import ShardFacts
from mohole.store.shuffle import LISTINGS
from mohole.tensors import open_tensors, write_tensors

Int64 = NDArray[np.int64]

_ENTRIES_PER_TOKEN = 64
"""Reckoned with when runs are cut into cells, all alike."""
_FAMILY_COSINE, _BEYOND_CHANCE = 0.35, 1.25
"""From the first on two directions may be of one family, if that is so many times what the nearest of as many random ones has."""
_INDEXED, COUNTS_FILE = "indexed", "counts.safetensors"


def build(
    out: Path,
    sources: Sources,
    settings: config.Catalogue,
    *,
    seed: int,
    executor: Executor | None = None,
    limits: Limits | None = None,
) -> None:
    """Write the files of a catalogue artifact into `out`; go on where `out` has some already. The order of the store's rows
    does not matter.

    Args:
        executor: what runs the tasks; None: this process. Sources in memory are for this process only.
        limits: what a worker may use when the index is sorted.

    Raises:
        StageError: the store holds no whole document of the corpus.
        NumericsError: a row or an activation is not a finite number.
    """
    storage, limits, executor = open_storage(out), limits or Limits(), executor or Inline(Cores(1, 1))
    storage.sweep()
    if not storage.exists(FACTS_FILE):  # else it was killed when all was made
        _make(out, storage, sources, settings, seed, executor, limits)
    _tidy(out)


def _make(
    out: Path,
    storage: Storage,
    sources: Sources,
    settings: config.Catalogue,
    seed: int,
    executor: Executor,
    limits: Limits,
) -> None:
    dictionary, corpus = sources.dictionary(), sources.corpus()
    ids = EntryIds(dictionary.n_latents, corpus.n_tokens)
    sample = choose(corpus, sources.store().tokens, settings.max_tokens, seed=seed)
    write_tensors(out / SAMPLE_FILE, {"tokens": sample.tokens})
    is_indexed = _is_indexed(storage)
    encodings = _encodings(sources, sample, ids, limits, storage)
    calls = [Task(task.name, run_encode, (task,)) for task in encodings]
    n_rows = [task.last - task.first for task in encodings]
    let_go = (f"{RUNS}/",) if is_indexed else ()
    # A bar for each step: their units have nothing in common, and a share of their sum would be no share of the time.
    with track(f"catalogue {dictionary.hookpoint}: codes", len(sample.tokens), "tokens") as tracker:
        parts = run_missing(executor, storage, ENCODE, calls, tracker, n_rows, let_go)
    counts = _index(storage, parts, ids, executor, limits)
    n_counted = _for_ranges(out, corpus, sample, counts, settings, parts, seed)
    ranges = _ranges(sources, ids, counts, parts, settings, seed, storage)
    calls = [Task(task.name, run_range, (task,)) for task in ranges]
    n_latents = [task.last - task.first for task in ranges]
    with track(f"catalogue {dictionary.hookpoint}: features", ids.n_latents, "latents") as tracker:
        made = run_missing(executor, storage, RANGES, calls, tracker, n_latents)
    with track(f"catalogue {dictionary.hookpoint}: families, then the map", 2, "steps") as tracker:
        directions = dictionary.directions(torch.arange(ids.n_latents))
        _finish(out, [task.name for task in ranges], directions, seed, tracker)
    write_tensors(out / DOCUMENTS_FILE, {"document_starts": np.asarray(corpus.document_starts, dtype=np.int64)})
    _write_pieces(out, corpus.pieces)
    facts = {
        "format": FORMAT,
        "hookpoint": dictionary.hookpoint,
        "n_latents": ids.n_latents,
        "n_tokens": len(sample.tokens),
        "n_documents": sample.n_documents,
        "n_corpus_tokens": corpus.n_tokens,
        "n_counted_together": n_counted,
        "promoted": settings.promoted,
        "latents_per_file": LATENTS_PER_RANGE,
        "codes": [{key: part[key] for key in ("n_rows", "n_entries", "n_bytes", "digest")} for part in parts],
        "features": [{key: part[key] for key in ("n_bytes", "digest")} for part in made],
    }
    storage.put(FACTS_FILE, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())


def _encodings(sources: Sources, sample: Sample, ids: EntryIds, limits: Limits, storage: Storage) -> list[EncodeTask]:
    bits = cell_bits_of(TOKENS_PER_PART * _ENTRIES_PER_TOKEN, limits.cell_bytes)
    return [
        EncodeTask(part_name(number), number, sources, first, last, ids, bits, storage.url)
        for number, (first, last) in enumerate(_cuts(sample.tokens, sources.corpus()))
    ]


def _cuts(tokens: Int64, corpus: Corpus) -> list[tuple[int, int]]:
    """Parts of the sample, of whole documents: (first, one past the last) row."""
    documents = corpus.document_of(tokens)
    ends = np.append(np.flatnonzero(np.diff(documents)) + 1, len(tokens))
    cuts, first = [], 0
    while first < len(tokens):
        last = int(ends[min(int(np.searchsorted(ends, first + TOKENS_PER_PART)), len(ends) - 1)])
        cuts.append((first, last))
        first = last
    return cuts


def _is_indexed(storage: Storage) -> bool:
    """Is the index there? What is left of one that is not whole is taken away: the runs that it was made of are gone."""
    was_indexed = is_committed(storage, INDEX, _INDEXED)
    if was_indexed and not is_whole(storage, INDEX, _INDEXED):
        storage.delete([*storage.names(f"{INDEX}/"), *storage.names(f"{TASKS}/{ENCODE}/")])
        return False
    return was_indexed


def _index(
    storage: Storage, parts: Sequence[dict[str, Any]], ids: EntryIds, executor: Executor, limits: Limits
) -> Int64:
    """Sort the runs by latent, and count how often each latent fires."""
    assert storage.local is not None
    counts_file = storage.local / COUNTS_FILE
    if not is_committed(storage, INDEX, _INDEXED):
        counts = np.zeros(ids.n_latents, dtype=np.int64)
        for number in range(len(parts)):
            found = open_tensors(storage.local / RUNS / f"{part_name(number)}.counts")
            counts[found["latents"]] += found["counts"]
        write_tensors(counts_file, {"counts": counts})
        runs = [ShardFacts.from_json(part["run"]) for part in parts]
        sort_runs(storage.folder(RUNS), runs, ids, storage.folder(INDEX), executor, limits)
        shards = storage.names(f"{INDEX}/{SHARDS}/")
        commit(storage, INDEX, _INDEXED, {}, [COUNTS_FILE, f"{INDEX}/{LAYOUT_FILE}", *shards])
    storage.delete(storage.names(f"{RUNS}/"))
    return np.array(open_tensors(counts_file)["counts"])


def _for_ranges(
    out: Path,
    corpus: Corpus,
    sample: Sample,
    counts: Int64,
    settings: config.Catalogue,
    parts: Sequence[dict[str, Any]],
    seed: int,
) -> int:
    """Write what every range needs and nobody should work out twice. Returns the tokens over which firing together is counted."""
    counted = within(corpus, sample.tokens, settings.together_tokens, seed=seed)
    there = counts
    if len(counted) < len(sample.tokens):
        there = np.zeros_like(counts)
        for part in CodeStore(out, [part["n_rows"] for part in parts]).parts():
            chosen = np.repeat(np.isin(part.tokens, counted, assume_unique=True), np.diff(part.row_starts))
            there += np.bincount(part.latents[chosen], minlength=len(counts))
    write_tensors(
        out / DRIVER_FILE,
        {
            "twins": first_twins(corpus.tokens, corpus.document_starts),
            "seen": np.unique(corpus.tokens).astype(np.int64),
            "counted_tokens": counted,
            "counts_there": there,
        },
    )
    return len(counted)


def _ranges(
    sources: Sources,
    ids: EntryIds,
    counts: Int64,
    parts: Sequence[dict[str, Any]],
    settings: config.Catalogue,
    seed: int,
    storage: Storage,
) -> list[RangeTask]:
    return [
        RangeTask(
            name=part_name(number),
            number=number,
            sources=sources,
            first=first,
            last=min(first + LATENTS_PER_RANGE, ids.n_latents),
            n_entries=int(counts[first : first + LATENTS_PER_RANGE].sum()),
            ids=ids,
            rows_of_parts=tuple(part["n_rows"] for part in parts),
            settings=settings,
            seed=seed,
            out=storage.url,
        )
        for number, first in enumerate(range(0, ids.n_latents, LATENTS_PER_RANGE))
    ]


def _finish(out: Path, ranges: Sequence[str], directions: torch.Tensor, seed: int, tracker: Tracker) -> None:
    """Families and map, which need all latents, and the header."""
    found = [open_tensors(out / COLUMNS / f"{name}.safetensors") for name in ranges]
    columns: Columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    entries = np.zeros(len(columns["count"]), dtype=HEADER)
    for name in ("count", "sum", "maximum", "offset", "n_bytes"):
        entries[name] = columns[name]
    n_latents, d = directions.shape
    chance = expected_max_cosine(d, n_latents - 1) if n_latents > 1 and d > 1 else 0.0
    at_least = max(_FAMILY_COSINE, min(_BEYOND_CHANCE * chance, 1.0))
    entries["family"] = families(columns["neighbour"], columns["cosine"], directions, at_least=at_least)
    tracker.advance()
    xy = place(columns["neighbour"], columns["cosine"], directions, seed=seed)
    entries["x"], entries["y"] = xy[:, 0], xy[:, 1]
    write_header(out, entries)


def _tidy(out: Path) -> None:
    """Take away what only the steps needed; their commits last."""
    for name in (SAMPLE_FILE, DRIVER_FILE, COUNTS_FILE):
        (out / name).unlink(missing_ok=True)
    for folder in (RUNS, COLUMNS, f"{INDEX}/{LISTINGS}", f"{INDEX}/{TASKS}", TASKS):
        if (out / folder).exists():
            shutil.rmtree(out / folder)


def _write_pieces(out: Path, pieces: tuple[str, ...]) -> None:
    """The vocabulary as one run of UTF-8 and the places where each entry begins: opens without parsing, keeps every character."""
    encoded = [piece.encode("utf-8") for piece in pieces]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    write_tensors(out / PIECES_FILE, {"piece_bytes": data, "piece_starts": starts})
