"""The exact clamp as a person asks for it: which latents, and how strongly. What rows become is in dictionary/clamped.py.

    x' = x + s(x) sum_i (c_i - f_i(x)) d_i        s is 1, or the row's own scale where the dictionary normalises rows

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
from numpy.typing import NDArray

from mohole.dictionary import Dictionary
from mohole.dictionary.clamped import ClampedLatents
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
    """Strength in units of the latent, as `encode` gives them: the model's, or those of each row's own scale."""
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


def resolve(
    clamps: Sequence[Clamp], dictionaries: Sequence[Dictionary], catalogues: Sequence[Maxima] = ()
) -> tuple[ClampedLatents, ...]:
    """Find each clamp's dictionary and turn its strength into units of the latent. One entry per hookpoint that is clamped.

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
        chosen.setdefault(hookpoint, {})[clamp.latent] = _in_units(clamp, hookpoint, maxima.get(hookpoint), n_latents)
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


def _in_units(clamp: Clamp, hookpoint: str, maxima: NDArray[np.float32] | None, n_latents: int) -> float:
    if clamp.times_max is None:
        return clamp.strength
    if maxima is None:
        raise ConfigError(
            f"Clamp of latent {clamp.latent}: times_max needs the catalogue of {hookpoint} for the maximum; "
            "give steer(..., catalogue=...), or a value"
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
