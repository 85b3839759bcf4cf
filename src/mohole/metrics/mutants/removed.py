"""Wrong ways to remove a concept's latents, and to score it."""

from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant


def _cosine_for_product(codes: Any, positive: Any, decoder: Any, direction: Array) -> Array:
    """A cosine where a product belongs: right only for decoder rows of length 1.

    Seen in: ranking latents by cosine times activation.
    """
    return OURS.attribution(codes, positive, decoder / np.linalg.norm(decoder, axis=1, keepdims=True), direction)


def _direction_alone(codes: Any, positive: Any, decoder: Any, direction: Array) -> Array:
    """Latents count by their direction, whether they fire or not.

    Seen in: ranking decoder rows by similarity to a probe.
    """
    return np.asarray(decoder @ direction)


def _difference_alone(codes: Any, positive: Any, decoder: Any, direction: Array) -> Array:
    """Latents count by their firing, whether the probe reads their direction or not.

    Seen in: ranking by activation difference.
    """
    return OURS.class_gap(codes, positive)


def _the_reconstruction(rows: Any, codes: Any, decoder: Any, latents: Any) -> Array:
    """The reconstruction stands in for the row: its error is charged to the concept.

    Seen in: ablations that splice without the error term.
    """
    return np.asarray(OURS.without(codes @ decoder, codes, decoder, latents))


def _unit_rows(rows: Any, codes: Any, decoder: Any, latents: Any) -> Array:
    """Decoder rows are taken for unit vectors.

    Seen in: dictionaries with free decoder rows, read as if they had unit rows.
    """
    return OURS.without(rows, codes, decoder / np.linalg.norm(decoder, axis=1, keepdims=True), latents)


def _projected_out(rows: Any, codes: Any, decoder: Any, latents: Any) -> Array:
    """The latents' directions are projected out of every row, also where they are silent.

    Seen in: directional ablation taken for a latent's.
    """
    basis = np.linalg.qr(decoder[latents].T)[0] if len(latents) else np.zeros((rows.shape[1], 0))
    return np.asarray(rows - rows @ basis @ basis.T)


def _zero_if_unbiased(biased: Array, ablated: Array, oracle: Array) -> Array:
    """0 where there was nothing to remove.

    Seen in: SAEBench scr_and_tpp, which averages such zeros in.
    """
    return np.nan_to_num(OURS.scr(biased, ablated, oracle))


def _any_gap_divides(biased: Array, ablated: Array, oracle: Array) -> Array:
    """Divided by whatever gap there is.

    Seen in: ratios of differences of accuracies.
    """
    return (ablated - biased) / np.where(oracle == biased, np.nan, oracle - biased)


def _cut_off(biased: Array, ablated: Array, oracle: Array) -> Array:
    """Cut off at 0 and 1: harm is hidden.

    Seen in: scores cut to [0, 1].
    """
    return OURS.scr(biased, ablated, oracle).clip(0, 1)


def _of_the_oracle(biased: Array, ablated: Array, oracle: Array) -> Array:
    """The biased probe's accuracy is forgotten: doing nothing scores well.

    Seen in: a ratio to the oracle.
    """
    return np.where(np.isnan(OURS.scr(biased, ablated, oracle)), np.nan, ablated / oracle)


def _others_forgotten(before: Array, after: Array, *, chance: float | None = None) -> Array:
    """What the other classes lose is not taken off: breaking everything scores best.

    Seen in: targeted effects reported alone.
    """
    calm = np.broadcast_to(before[..., None, :], after.shape).copy()
    n = before.shape[-1]
    calm[..., np.arange(n), np.arange(n)] = np.diagonal(after, axis1=-2, axis2=-1)
    return OURS.tpp(before, calm, chance=chance)


def _target_among_the_others(before: Array, after: Array, *, chance: float | None = None) -> Array:
    """The mean over the others counts the target too.

    Seen in: a mean over all classes.
    """
    n = before.shape[-1]
    return np.asarray(OURS.tpp(before, after, chance=chance) * (n - 1) / n)


def _gains_are_zero(before: Array, after: Array, *, chance: float | None = None) -> Array:
    """A class that is told better after the edit counts as untouched.

    Seen in: losses cut off at 0.
    """
    return OURS.tpp(before, np.minimum(after, before[..., None, :]), chance=chance)


MUTANTS: tuple[Mutant, ...] = (
    mutant("attribution", _cosine_for_product),
    mutant("attribution", _direction_alone),
    mutant("attribution", _difference_alone),
    mutant("without", _the_reconstruction),
    mutant("without", _unit_rows),
    mutant("without", _projected_out),
    mutant("scr", _zero_if_unbiased),
    mutant("scr", _any_gap_divides),
    mutant("scr", _cut_off),
    mutant("scr", _of_the_oracle),
    mutant("tpp", _others_forgotten),
    mutant("tpp", _target_among_the_others),
    mutant("tpp", _gains_are_zero),
)
