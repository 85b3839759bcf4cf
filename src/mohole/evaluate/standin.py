"""A dictionary of any kind as what stands in for activations: what it reads, what it writes, and how it rebuilds rows.

On rows alone. Its edits of a running model are in in_model/edits.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, assert_never

import torch
from jaxtyping import Float
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
from mohole.dictionary.places import places_of, widths_of
from mohole.errors import HookpointError, StageError
from mohole.metrics import row_norms
from mohole.model import LanguageModel

Rows = Float[Tensor, "row d"]


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
        return sum(widths_of(self.dictionary)[: len(self.reads)])

    @property
    def width_out(self) -> int:
        """Columns of all that it writes."""
        return sum(widths_of(self.dictionary)[len(self.reads) :])

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

    def taken(self, rows: Rows) -> Rows:
        """Rows as the dictionary takes them: on its device, in float32."""
        return rows.to(self.device, torch.float32)

    def scales(self, rows: Mapping[str, Rows]) -> Float[Tensor, " row"] | None:
        """Of a dictionary that normalises each row by itself, what one unit of a latent is in model units. None: 1 in all."""
        if not isinstance(self.dictionary, NormalisedAutoencoder):
            return None
        return self.dictionary.scale_of(self.taken(rows[self.reads[0]]))[:, 0]

    def rebuild(self, rows: Mapping[str, Rows]) -> tuple[dict[str, Rows], SparseCodes]:
        """What it says for each of `writes`, from rows of all of `reads`; and the codes, of all layers side by side."""
        own = {name: self.taken(rows[name]) for name in self.reads}
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

    def compared(self, rows: Mapping[str, Rows]) -> tuple[Float[Tensor, "row wide"], Float[Tensor, "row wide"]]:
        """What it is to say of these rows, and what it says: all of `writes`, in main memory."""
        return joined(rows, self.writes), joined(self.rebuild(rows)[0], self.writes)


def joined(rows: Mapping[str, Rows], names: Sequence[str]) -> Float[Tensor, "row wide"]:
    """The rows of these hookpoints with their columns side by side, in main memory."""
    if len(names) == 1:  # no copy
        return rows[names[0]].cpu()
    return torch.cat([rows[name].cpu() for name in names], 1)


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
        widths = widths_of(dictionary)
        for name, width in zip((*reads, *writes), widths, strict=True):
            if model.width(name) != width:
                raise HookpointError(
                    f"{name}: rows of {model.name} are {model.width(name)} wide there, the dictionary's {width}; "
                    "was it learned on another model?"
                )
        reads, writes = (tuple(model.canonical(name) for name in names) for names in (reads, writes))
    return StandIn(ready, kind_of(dictionary), reads, writes, devices.pop())


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


def for_numpy(dictionary: AnyDictionary) -> AnyDictionary:
    """The same in float32 and in main memory, for what works on its weights as arrays."""
    there: AnyDictionary = _changed(dictionary, lambda tensor: tensor.to("cpu", torch.float32))
    return there


def _in_float32(value: Any) -> Any:
    """The same with every tensor in float32, which is what kernels work in and files hold."""
    return _changed(value, lambda tensor: tensor.to(torch.float32))


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor of it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
    return value
