"""What a stand-in does to a running model: its edits of one forward pass, at the positions to be replaced and no others.

An SAE writes where it reads. A transcoder reads before it writes, in the same pass, so it sees what other stand-ins have done
upstream; so do the layers of a cross-layer transcoder. A crosscoder's latents need all its hookpoints, the later ones too,
before the first is written: it reads the model's untouched run.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mohole.dictionary import Crosscoder, CrossLayerTranscoder, NormalisedAutoencoder, SparseAutoencoder, Transcoder
from mohole.errors import StageError
from mohole.evaluate.standin import Rows, StandIn
from mohole.model import Edit

Change = Callable[[Rows], Rows]


def replacing(hookpoint: str, replaced: Bool[Tensor, "batch position"], change: Change) -> Edit:
    """An edit that changes the rows at the positions to be replaced, and no others."""

    def edit(rows: Tensor, _first_position: int) -> Tensor:
        mask = replaced.to(rows.device)
        if bool(mask.any()):
            rows[mask] = change(rows[mask]).to(rows)
        return rows

    return Edit(hookpoint, edit)


def together(
    stand_ins: Sequence[StandIn],
    replaced: Bool[Tensor, "batch position"],
    clean: Mapping[str, Float[Tensor, "batch position d"]],
) -> list[Edit]:
    """The edits of several stand-ins for one pass. Where one writes what another reads, the reader sees what was written."""
    pairs = [_edits(each, replaced, clean) for each in stand_ins]
    return [edit for writes, _ in pairs for edit in writes] + [edit for _, looks in pairs for edit in looks]


def require_apart(stand_ins: Sequence[StandIn]) -> tuple[str, ...]:
    """Everything that these write, in order.

    Raises:
        StageError: nothing to write, or two of them write the same place, or a head and its layer.
    """
    places = [name for each in stand_ins for name in each.writes]
    if not places:
        raise StageError("splice: no dictionary is given")
    for first, second in combinations(places, 2):
        short, long = sorted((first, second), key=len)
        if short == long or (short.startswith("z.") and long.startswith(f"{short}.")):
            raise StageError(f"{first} and {second}: two dictionaries write there; splice them one after the other")
    return tuple(places)


def _edits(
    spliced: StandIn,
    replaced: Bool[Tensor, "batch position"],
    clean: Mapping[str, Float[Tensor, "batch position d"]],
) -> tuple[list[Edit], list[Edit]]:
    """(edits that write, edits that only look) for one forward pass.

    Args:
        replaced: positions to be replaced; all others keep their bits.
        clean: rows of the untouched run at `needs_clean`.
    """
    match spliced.dictionary:
        case SparseAutoencoder() | NormalisedAutoencoder():
            return [replacing(spliced.writes[0], replaced, partial(_rebuilt, spliced))], []
        case Transcoder():
            seen: dict[str, Rows] = {}
            write = replacing(
                spliced.writes[0], replaced, lambda rows: _rebuilt(spliced, seen.pop(spliced.reads[0])).to(rows)
            )
            return [write], [_watching(spliced.reads[0], replaced, seen)]
        case Crosscoder():
            outputs = spliced.rebuild({name: clean[name][replaced.to(clean[name].device)] for name in spliced.reads})[0]
            return [replacing(name, replaced, partial(_instead, rows)) for name, rows in outputs.items()], []
        case CrossLayerTranscoder() as layers:
            said = _LayersInTurn(layers, spliced.taken)
            looks = [replacing(name, replaced, partial(said.read, number)) for number, name in enumerate(spliced.reads)]
            return [
                replacing(name, replaced, partial(said.write, number)) for number, name in enumerate(spliced.writes)
            ], looks
        case _:
            assert_never(spliced.dictionary)


def _rebuilt(spliced: StandIn, rows: Rows) -> Rows:
    """Of a dictionary with one hookpoint to read and one to write."""
    return spliced.rebuild({spliced.reads[0]: rows})[0][spliced.writes[0]].to(rows)


def _watching(hookpoint: str, replaced: Bool[Tensor, "batch position"], seen: dict[str, Rows]) -> Edit:
    """An edit that changes nothing and keeps what passes."""

    def look(rows: Rows) -> Rows:
        seen[hookpoint] = rows
        return rows

    return replacing(hookpoint, replaced, look)


def _instead(rows: Rows, found: Rows) -> Rows:
    return rows


class _LayersInTurn:
    """A cross-layer transcoder in a pass: each layer's latents as soon as it has read, each output when it is due."""

    def __init__(self, layers: CrossLayerTranscoder, taken: Change) -> None:
        self._layers, self._taken = layers, taken
        self._due: list[Rows] = []

    def read(self, number: int, rows: Rows) -> Rows:
        layer, (n_layers, d_out) = self._layers.layers[number], self._layers.b_dec.shape
        own = self._taken(rows)
        if number == 0:
            self._due = [offset.repeat(len(own), 1) for offset in self._layers.b_dec]
        wide = layer.add_to(own.new_zeros(len(own), (n_layers - number) * d_out), layer.encode(own))
        for later, part in enumerate(torch.split(wide, d_out, dim=1), start=number):
            self._due[later] = self._due[later] + part
        return rows

    def write(self, number: int, rows: Rows) -> Rows:
        return self._due[number]
