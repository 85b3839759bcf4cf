"""A dictionary of any kind as what stands in for activations: what it reads, what it writes, and its edits of a running model.

An SAE writes where it reads. A transcoder reads before it writes, in the same pass, so it sees what other stand-ins have done
upstream; so do the layers of a cross-layer transcoder. A crosscoder's latents need all its hookpoints, the later ones too,
before the first is written: it reads the model's untouched run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    CrossLayerTranscoder,
    NormalisedAutoencoder,
    SparseAutoencoder,
    SparseCodes,
    Transcoder,
)
from mohole.dictionary.files import kind_of, tensors_of
from mohole.errors import HookpointError, StageError
from mohole.metrics import row_norms
from mohole.model import Edit, LanguageModel

Rows = Float[Tensor, "row d"]
Change = Callable[[Rows], Rows]


@dataclass(frozen=True)
class StandIn:
    """A dictionary, made ready: its numbers in float32, its hookpoints in mohole's words."""

    dictionary: AnyDictionary
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    device: torch.device

    @property
    def name(self) -> str:
        """Where it stands, for people."""
        reads, writes = ", ".join(self.reads), ", ".join(self.writes)
        return reads if reads == writes else f"{reads} -> {writes}"

    @property
    def n_latents(self) -> int:
        return self.dictionary.n_latents

    @property
    def needs_clean(self) -> tuple[str, ...]:
        """Hookpoints whose rows it must have from the untouched run."""
        return self.reads if isinstance(self.dictionary, Crosscoder) else ()

    @property
    def width_in(self) -> int:
        """Columns of all that it reads."""
        return sum(_widths(self.dictionary)[: len(self.reads)])

    @property
    def width_out(self) -> int:
        """Columns of all that it writes."""
        return sum(_widths(self.dictionary)[len(self.reads) :])

    def direction(self, latent: int) -> Float[Tensor, " d"]:
        """What one unit of a latent adds to all that it writes, side by side; times the row's `scales`, where it has such."""
        if not isinstance(self.dictionary, CrossLayerTranscoder):
            return self.dictionary.directions(torch.tensor([latent], device=self.device))[0]
        for layer in self.dictionary.layers:
            if latent < layer.n_latents:
                wide: Tensor = layer.W_dec[latent]
                return torch.cat([wide.new_zeros(self.width_out - len(wide)), wide])
            latent -= layer.n_latents
        raise IndexError(f"latent {latent}: beyond the last layer's")

    @property
    def direction_norms(self) -> Float[Tensor, " latent"]:
        """Length of each latent's direction over all that it writes."""
        if isinstance(self.dictionary, CrossLayerTranscoder):
            return torch.cat([row_norms(layer.W_dec) for layer in self.dictionary.layers])
        return row_norms(self.dictionary.directions(torch.arange(self.n_latents, device=self.device)))

    def scales(self, rows: Mapping[str, Rows]) -> Float[Tensor, " row"] | None:
        """Of a dictionary that normalises each row by itself, what one unit of a latent is in model units. None: 1 in all."""
        if not isinstance(self.dictionary, NormalisedAutoencoder):
            return None
        return self.dictionary.scale_of(self._taken(rows[self.reads[0]]))[:, 0]

    def rebuild(self, rows: Mapping[str, Rows]) -> tuple[dict[str, Rows], SparseCodes]:
        """What it says for each of `writes`, from rows of all of `reads`; and the codes, of all layers side by side."""
        own = {name: self._taken(rows[name]) for name in self.reads}
        match self.dictionary:
            case SparseAutoencoder() as sae:
                codes = sae.encode(own[self.reads[0]])
                return {self.writes[0]: sae.decode(codes)}, codes
            case NormalisedAutoencoder() as normalised:
                read = own[self.reads[0]]
                codes = normalised.encode(read)
                return {self.writes[0]: normalised.decode(codes, normalised.units_of(read))}, codes
            case Transcoder() as transcoder:
                read = own[self.reads[0]]
                codes = transcoder.encode(read)
                return {self.writes[0]: transcoder.decode(codes, read)}, codes
            case Crosscoder() as crosscoder:
                codes = crosscoder.encode(torch.cat([own[name] for name in self.reads], dim=1))
                parts = torch.split(crosscoder.decode(codes), list(crosscoder.widths), dim=1)
                return dict(zip(self.writes, parts, strict=True)), codes
            case CrossLayerTranscoder() as layers:
                each = layers.encode(torch.stack([own[name] for name in self.reads]))
                return dict(zip(self.writes, layers.decode(each), strict=True)), _side_by_side(each)
            case _:
                assert_never(self.dictionary)

    def edits(
        self, replaced: Bool[Tensor, "batch position"], clean: Mapping[str, Float[Tensor, "batch position d"]]
    ) -> tuple[list[Edit], list[Edit]]:
        """(edits that write, edits that only look) for one forward pass.

        Args:
            replaced: positions to be replaced; all others keep their bits.
            clean: rows of the untouched run at `needs_clean`.
        """
        match self.dictionary:
            case SparseAutoencoder() | NormalisedAutoencoder():
                return [replacing(self.writes[0], replaced, self._alone)], []
            case Transcoder():
                seen: dict[str, Rows] = {}
                write = replacing(self.writes[0], replaced, lambda rows: self._alone(seen.pop(self.reads[0])).to(rows))
                return [write], [_watching(self.reads[0], replaced, seen)]
            case Crosscoder():
                outputs = self.rebuild({name: clean[name][replaced.to(clean[name].device)] for name in self.reads})[0]
                return [replacing(name, replaced, partial(_instead, rows)) for name, rows in outputs.items()], []
            case CrossLayerTranscoder() as layers:
                said = _LayersInTurn(layers, self._taken)
                looks = [
                    replacing(name, replaced, partial(said.read, number)) for number, name in enumerate(self.reads)
                ]
                return [
                    replacing(name, replaced, partial(said.write, number)) for number, name in enumerate(self.writes)
                ], looks
            case _:
                assert_never(self.dictionary)

    def _alone(self, rows: Rows) -> Rows:
        """Of a dictionary with one hookpoint to read and one to write."""
        return self.rebuild({self.reads[0]: rows})[0][self.writes[0]].to(rows)

    def _taken(self, rows: Rows) -> Rows:
        return rows.to(self.device, torch.float32)


def stand_in(dictionary: AnyDictionary, model: LanguageModel | None = None) -> StandIn:
    """A dictionary made ready to stand in for activations, of `model` if given.

    Raises:
        HookpointError: the model has no such place, or its rows are of another width. StageError: tensors that are not all on one
            device, or on none.
    """
    reads, writes = places_of(dictionary)
    devices = {tensor.device for tensor in tensors_of(dictionary).values()}
    if len(devices) > 1 or "meta" in {device.type for device in devices}:
        names = ", ".join(sorted(str(device) for device in devices))
        raise StageError(
            f"dictionary of {', '.join(writes)}: its tensors are on {names}; bring all to one device with numbers"
        )
    ready = _in_float32(dictionary)
    if model is not None:
        widths = _widths(dictionary)
        for name, width in zip((*reads, *writes), widths, strict=True):
            if model.width(name) != width:
                raise HookpointError(
                    f"{name}: rows of {model.name} are {model.width(name)} wide there, the dictionary's {width}; "
                    "was it learned on another model?"
                )
        reads, writes = (tuple(model.canonical(name) for name in names) for names in (reads, writes))
    return StandIn(ready, kind_of(dictionary), reads, writes, devices.pop())


def places_of(dictionary: AnyDictionary) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(hookpoints it reads, hookpoints it writes)."""
    match dictionary:
        case SparseAutoencoder(hookpoint=hookpoint) | NormalisedAutoencoder(hookpoint=hookpoint):
            return (hookpoint,), (hookpoint,)
        case Transcoder(reads=reads, writes=writes):
            return (reads,), (writes,)
        case Crosscoder(hookpoints=hookpoints):
            return hookpoints, hookpoints
        case CrossLayerTranscoder(reads=many, writes=targets):
            return many, targets
        case _:
            assert_never(dictionary)


def together(
    stand_ins: Sequence[StandIn],
    replaced: Bool[Tensor, "batch position"],
    clean: Mapping[str, Float[Tensor, "batch position d"]],
) -> list[Edit]:
    """The edits of several stand-ins for one pass. Where one writes what another reads, the reader sees what was written."""
    pairs = [each.edits(replaced, clean) for each in stand_ins]
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


def replacing(hookpoint: str, replaced: Bool[Tensor, "batch position"], change: Change) -> Edit:
    """An edit that changes the rows at the positions to be replaced, and no others."""

    def edit(rows: Tensor, _first_position: int) -> Tensor:
        mask = replaced.to(rows.device)
        if bool(mask.any()):
            rows[mask] = change(rows[mask]).to(rows)
        return rows

    return Edit(hookpoint, edit)


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


def _side_by_side(layers: Sequence[SparseCodes]) -> SparseCodes:
    """Codes of several layers as one: the latents of each are counted on from those of the layers before."""
    before = 0
    rows, latents, values = [], [], []
    for codes in layers:
        rows.append(codes.rows)
        latents.append(codes.latents + before)
        values.append(codes.values)
        before += codes.n_latents
    order = torch.cat(rows).argsort(stable=True)
    starts = torch.stack([codes.row_starts for codes in layers]).sum(0)
    return SparseCodes(starts, torch.cat(latents)[order], torch.cat(values)[order], before)


def _widths(dictionary: AnyDictionary) -> tuple[int, ...]:
    """Columns of each of what it reads, then of each of what it writes."""
    match dictionary:
        case SparseAutoencoder(d_model=width) | NormalisedAutoencoder(d_model=width):
            return width, width
        case Transcoder(latents=latents):
            return latents.W_enc.shape[1], latents.W_dec.shape[1]
        case Crosscoder(widths=widths):
            return widths + widths
        case CrossLayerTranscoder(layers=layers, b_dec=b_dec):
            return (layers[0].W_enc.shape[1],) * len(layers) + (b_dec.shape[1],) * len(layers)
        case _:
            assert_never(dictionary)


def _in_float32(value: Any) -> Any:
    """The same with every tensor in float32, which is what kernels work in and files hold."""
    if isinstance(value, Tensor):
        return value.to(torch.float32)
    if isinstance(value, tuple):
        return tuple(_in_float32(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _in_float32(getattr(value, field.name)) for field in fields(value)})
    return value
