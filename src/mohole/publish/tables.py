"""Tables of a published folder: blocks one after the other, and where each begins, so that one is fetched without the others."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mohole.catalogue.blocks import Columns, pack
from mohole.publish.layout import (
    COLUMNS,
    FAMILIES,
    FAMILIES_PER_BLOCK,
    LATENTS_OF_COLUMNS,
    LATENTS_OF_LINES,
    LEVEL,
    LINES,
    PLACES,
)
from mohole.publish.texts import text_columns
from mohole.serve.answers import Plain, family_facts, lines
from mohole.serve.columns import STATUSES
from mohole.serve.queries import FeaturesAsk
from mohole.serve.relations import places_of
from mohole.serve.runs import OpenHookpoint


def write_tables(folder: Path, place: OpenHookpoint) -> None:
    """Everything that lists, searches and the map need of all latents."""
    _write(folder, LINES, _lines(place))
    _write(folder, COLUMNS, _columns(place))
    if (xy := places_of(place.catalogue)) is not None:
        _write(folder, PLACES, ({"x": xy[low:high, 0], "y": xy[low:high, 1]} for low, high in _cut(len(xy))))
    if n := n_families(place):
        _write(folder, FAMILIES, _families(place, n))


def n_families(place: OpenHookpoint) -> int:
    """Families are numbered from 0 on."""
    families = place.columns.families
    return 0 if families is None else int(families.max(initial=-1)) + 1


def _write(folder: Path, name: str, blocks: Iterable[Columns]) -> None:
    starts = [0]
    with (folder / f"{name}.bin").open("wb") as file:
        for block in blocks:
            starts.append(starts[-1] + file.write(pack(block, LEVEL)))
    (folder / f"{name}.at").write_bytes(np.asarray(starts, dtype="<u8").tobytes())


def _lines(place: OpenHookpoint) -> Iterator[Columns]:
    people = place.by_hand
    for low, high in _cut(place.catalogue.n_latents, LATENTS_OF_LINES):
        yield _of_lines(lines(place, range(low, high), people))


def _of_lines(listed: Sequence[Plain]) -> Columns:
    return {
        "status": np.asarray([STATUSES.index(line["status"]) for line in listed], dtype=np.uint8),
        "f1": np.asarray([line["f1"] for line in listed], dtype=np.float64),  # None is NaN
        **text_columns("label", (line["label"] for line in listed)),
    }


def _columns(place: OpenHookpoint) -> Iterator[Columns]:
    """What is sorted and filtered by. Sorting labels takes Unicode's tables: it is done here, and the browser sorts numbers."""
    catalogue, families = place.catalogue, place.columns.families
    people = place.run.people
    edition = people.edition
    ask = FeaturesAsk(sort="label", which="all")
    by_label = place.columns.select(ask, people.labels(place.dictionary), edition)
    rank = np.empty(len(by_label), dtype=np.int64)
    rank[by_label] = np.arange(len(by_label))
    family = np.full(catalogue.n_latents, -1) if families is None else families
    for low, high in _cut(catalogue.n_latents):
        inside = slice(low, high)
        yield {
            "count": catalogue.counts[inside],
            "maximum": catalogue.maximum[inside],
            "family": family[inside],
            "label_rank": rank[inside],
        }


def _families(place: OpenHookpoint, n: int) -> Iterator[Columns]:
    """Each family's size, and its most frequent members as whole lines: labels of fifty latents lie in fifty places."""
    people = place.by_hand
    for low, high in _cut(n, FAMILIES_PER_BLOCK):
        found = [family_facts(place, family, people) for family in range(low, high)]
        members = [line for family in found for line in family["members"]]
        yield {
            "size": np.asarray([family["size"] for family in found], dtype=np.int64),
            "n_members": np.asarray([len(family["members"]) for family in found], dtype=np.int64),
            "latent": np.asarray([line["latent"] for line in members], dtype=np.int64),
            "count": np.asarray([line["count"] for line in members], dtype=np.int64),
            "maximum": np.asarray([line["maximum"] for line in members], dtype=np.float32),
            **_of_lines(members),
        }


def _cut(n: int, size: int = LATENTS_OF_COLUMNS) -> list[tuple[int, int]]:
    return [(low, min(low + size, n)) for low in range(0, n, size)]
