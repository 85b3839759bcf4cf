"""The exact clamp: what a row becomes when some latents are held at given values. Rows in, rows out; no model.

    x' = x + sum_i (c_i - f_i(x)) d_i

f_i(x) is the latent's activation in the dictionary's code of x, after its nonlinearity: for TopK that is zero for every
latent that is not among the row's k largest, so all latents have to be encoded to know one. d_i is its unit decoder
direction. What the dictionary does not explain, x - decode(encode(x)), is in x and stays in x': nothing is reconstructed.

Not the same as adding c_i d_i, which ends at f_i + c_i where the latent was already active. And not a promise that encoding x'
reads c_i again: x' is a new row, other latents may overlap with d_i, and a TopK row has room for k only. What is exact is the
movement along the directions (`Steered.check` measures it in the model).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mohole.dictionary import Dictionary
from mohole.errors import ConfigError, StageError


@runtime_checkable
class Maxima(Protocol):
    """What is needed of a catalogue: the largest activation of each latent seen on the corpus."""

    @property
    def hookpoint(self) -> str: ...

    @property
    def maximum(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Clamp:
    """Hold one latent at a strength, at every token. Give exactly one of `times_max` and `value`.

    Raises:
        ConfigError: both or neither strength, or one that is not finite.
    """

    latent: int
    times_max: float | None = None
    """Strength in units of the largest activation of the latent on the corpus. 0 removes the feature; negative is allowed."""
    value: float | None = None
    """Strength in the model's own units."""
    hookpoint: str | None = None
    """Which dictionary the latent is of. None where there is only one."""

    def __post_init__(self) -> None:
        if (self.times_max is None) == (self.value is None):
            raise ConfigError(f"Clamp of latent {self.latent}: give exactly one of times_max and value")
        if not math.isfinite(self.strength):
            raise ConfigError(f"Clamp of latent {self.latent}: strength {self.strength} is not a finite number")

    @property
    def strength(self) -> float:
        """The one of `times_max` and `value` that was given."""
        strength = self.value if self.times_max is None else self.times_max
        return math.nan if strength is None else strength


@dataclass(frozen=True)
class ClampedLatents:
    """Latents of one dictionary, held at values. All codes are read from the same row, so order does not matter."""

    dictionary: Dictionary
    latents: Int[Tensor, " latent"]
    values: Float[Tensor, " latent"]

    def shift(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row latent"]:
        """c_i - f_i(x): how far each row moves along each direction."""
        codes = self.dictionary.encode(rows)
        return self.values - torch.stack([codes.column(latent) for latent in self.latents.tolist()], dim=1)

    def apply(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """The rows with their latents held. A row that has nothing to move keeps its bits."""
        shift = self.shift(rows)
        moved = rows + shift @ self.dictionary.directions(self.latents)
        return torch.where((shift != 0).any(dim=1, keepdim=True), moved, rows)

    def change(self, rows: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch position d"]:
        """As `apply`, for rows as a model has them: in its dtype, on its device."""
        flat = rows.reshape(-1, rows.shape[-1])
        given = flat.to(dtype=torch.float32, device=self.values.device)
        return self.apply(given).to(dtype=rows.dtype, device=rows.device).reshape(rows.shape)


def resolve(
    clamps: Sequence[Clamp], dictionaries: Sequence[Dictionary], catalogues: Sequence[Maxima] = ()
) -> tuple[ClampedLatents, ...]:
    """Find each clamp's dictionary and turn its strength into model units. One entry per hookpoint that is clamped.

    Raises:
        ConfigError: no such latent or dictionary, a latent clamped twice, or `times_max` without a catalogue.
        StageError: `times_max` of a latent that was never seen active.
    """
    by_hookpoint = {dictionary.hookpoint: dictionary for dictionary in dictionaries}
    maxima = {catalogue.hookpoint: catalogue.maximum for catalogue in catalogues}
    chosen: dict[str, dict[int, float]] = {}
    for clamp in clamps:
        hookpoint = _hookpoint(clamp, by_hookpoint)
        n_latents = by_hookpoint[hookpoint].n_latents
        if not 0 <= clamp.latent < n_latents:
            raise ConfigError(f"latent {clamp.latent}: the dictionary at {hookpoint} has latents 0 to {n_latents - 1}")
        chosen.setdefault(hookpoint, {})[clamp.latent] = _model_units(
            clamp, hookpoint, maxima.get(hookpoint), n_latents
        )
    twice = [
        key for key, count in Counter((_hookpoint(c, by_hookpoint), c.latent) for c in clamps).items() if count > 1
    ]
    if twice:
        raise ConfigError(f"latent {twice[0][1]} at {twice[0][0]}: clamped twice; give each latent one strength")
    return tuple(
        ClampedLatents(by_hookpoint[hookpoint], torch.tensor(list(held)), torch.tensor(list(held.values())))
        for hookpoint, held in chosen.items()
    )


def _hookpoint(clamp: Clamp, by_hookpoint: dict[str, Dictionary]) -> str:
    names = ", ".join(by_hookpoint)
    if clamp.hookpoint is None:
        if len(by_hookpoint) != 1:
            raise ConfigError(
                f"Clamp of latent {clamp.latent}: say at which hookpoint; there are dictionaries at {names}"
            )
        return next(iter(by_hookpoint))
    if clamp.hookpoint not in by_hookpoint:
        raise ConfigError(f"{clamp.hookpoint}: no dictionary given for it, only for {names}")
    return clamp.hookpoint


def _model_units(clamp: Clamp, hookpoint: str, maxima: NDArray[np.float32] | None, n_latents: int) -> float:
    if clamp.times_max is None:
        return clamp.strength
    if maxima is None:
        raise ConfigError(
            f"Clamp of latent {clamp.latent}: times_max needs the catalogue of {hookpoint} for the maximum; "
            "give steer(..., catalogue=...), or a value in model units"
        )
    if len(maxima) != n_latents:
        raise ConfigError(
            f"catalogue of {hookpoint}: made for {len(maxima)} latents, the dictionary has {n_latents}; "
            "give the catalogue built from this dictionary"
        )
    maximum = float(maxima[clamp.latent])
    if maximum <= 0:
        raise StageError(
            f"latent {clamp.latent} at {hookpoint}: never active on the corpus, so it has no maximum to multiply; "
            "clamp it by value, or choose a latent with a density above 0"
        )
    return clamp.times_max * maximum
