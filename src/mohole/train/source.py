"""What a training reads: rows and targets of each step, from one stream for each hookpoint it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config.train import CrosscoderOf, CrossLayerOf, Learns, Sae, TranscoderOf
from mohole.errors import StageError
from mohole.store.stream import RowStream
from mohole.train.repeats import Repeats
from mohole.train.weights import Sites


@dataclass(frozen=True)
class Source:
    """Rows side by side of the hookpoints that are read and written; every stream in the same order."""

    reads: tuple[RowStream, ...]
    writes: tuple[RowStream, ...]
    """Equal to `reads` where what is read is what is reconstructed: targets are then the rows themselves."""
    device: torch.device | None = None
    """Where rows are put. None: they stay where they are."""
    _repeats: Repeats = field(init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, learns: Learns, streams: RowStream | Mapping[str, RowStream], device: torch.device | None = None
    ) -> "Source":
        """The streams that a kind of dictionary needs.

        Raises:
            StageError: one of them is not there, or they do not have the same rows.
        """
        match learns:
            case Sae():
                if isinstance(streams, Mapping):
                    if len(streams) != 1:
                        raise StageError(f"a sparse autoencoder reads one hookpoint, not {', '.join(streams)}")
                    streams = next(iter(streams.values()))
                return cls((streams,), (streams,), device)
            case TranscoderOf(reads=reads, writes=writes):
                return cls(_picked((reads,), streams), _picked((writes,), streams), device)
            case CrosscoderOf(hookpoints=hookpoints):
                both = _picked(hookpoints, streams)
                return cls(both, both, device)
            case CrossLayerOf(reads=several, writes=targets):
                return cls(_picked(several, streams), _picked(targets, streams), device)
            case _:
                assert_never(learns)

    def __post_init__(self) -> None:
        sizes = {stream.hookpoint: stream.n_rows for stream in (*self.reads, *self.writes)}
        object.__setattr__(self, "_repeats", Repeats(self.name, self.n_rows))
        if len(set(sizes.values())) != 1:
            counts = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise StageError(f"the hookpoints do not have the same rows ({counts}); harvest them together")

    @property
    def n_rows(self) -> int:
        """Rows of one pass."""
        return self.reads[0].n_rows

    @property
    def name(self) -> str:
        """Its hookpoints, for people."""
        names = [stream.hookpoint for stream in self.reads]
        targets = [stream.hookpoint for stream in self.writes]
        return "+".join(names) if names == targets else f"{'+'.join(names)} to {'+'.join(targets)}"

    def repeats(self, n_rows: int) -> str:
        """How often a run of so many rows reads the same ones, for people; nothing where it reads none twice."""
        if n_rows <= self.n_rows:
            return ""
        return f"{self.name}: the run reads its {self.n_rows:,} training rows {n_rows / self.n_rows:.3g} times"

    def sites(self) -> tuple[Sites, Sites]:
        """What is read, and what is written."""
        return _sites(self.reads), _sites(self.writes)

    def rows(self, first: int, n_rows: int) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "row d_out"]]:
        """Rows and targets from a rank of the order on, in the model's units.

        Raises:
            StageError: what is read is what was read at another rank.
        """
        found: dict[int, Tensor] = {}
        for stream in (*self.reads, *self.writes):
            if id(stream) not in found:
                found[id(stream)] = stream.rows(first, n_rows).to(device=self.device)
        rows = _beside([found[id(stream)] for stream in self.reads])
        self._repeats.check(first, rows)
        return rows, rows if self.reads == self.writes else _beside([found[id(stream)] for stream in self.writes])


def _picked(names: tuple[str, ...], streams: RowStream | Mapping[str, RowStream]) -> tuple[RowStream, ...]:
    held = streams if isinstance(streams, Mapping) else {streams.hookpoint: streams}
    missing = [name for name in names if name not in held]
    if missing:
        raise StageError(f"{', '.join(missing)}: not among the rows ({', '.join(held)}); add to harvest.hookpoints")
    return tuple(held[name] for name in names)


def _sites(streams: tuple[RowStream, ...]) -> Sites:
    return Sites(tuple(stream.hookpoint for stream in streams), tuple(stream.d_model for stream in streams))


def _beside(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
