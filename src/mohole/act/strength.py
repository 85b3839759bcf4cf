"""Interventions at so many times their strength: what a sweep varies. Values in, values out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from mohole.act.interventions import Ablate, Add, Cap, Clamp, Intervention, Orthogonalise, Scale, Swap
from mohole.errors import ConfigError


def at_strength(interventions: Sequence[Intervention], times: float) -> tuple[Intervention, ...]:
    """Each intervention as strong as so many times what it says: 1 is as it stands.

    At 0 an addition, a scaling and an ablation do nothing; a clamp at 0 times its strength holds the latent at 0, which is to
    take it away.

    Raises:
        ConfigError: one that has no strength: a cap, an orthogonalisation or a swap.
    """
    return tuple(_at(each, times) for each in interventions)


def _at(each: Intervention, times: float) -> Intervention:
    match each:
        case Clamp(times_max=times_max, value=value):
            return replace(each, times_max=_times(times_max, times), value=_times(value, times))
        case Add(value=value, times_max=times_max, times_norm=times_norm):
            return replace(
                each,
                value=_times(value, times),
                times_max=_times(times_max, times),
                times_norm=_times(times_norm, times),
            )
        case Scale(by=by):
            return replace(each, by=1.0 + times * (by - 1.0))
        case Ablate(latent=latent, hookpoint=hookpoint, where=where, when=when):
            return Scale(latent, 1.0 - times, hookpoint, where, when)
        case Cap() | Orthogonalise() | Swap():
            raise ConfigError(
                f"{each.kind}: has no strength to sweep; sweep a clamp, an addition, a scale or an ablation"
            )
        case _:
            assert_never(each)


def _times(strength: float | None, times: float) -> float | None:
    return None if strength is None else strength * times
