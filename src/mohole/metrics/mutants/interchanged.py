"""Wrong ways to swap attributes, and to count what it did."""

from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant


def _error_of_nobody(rows: Any, base: Any, source: Any, decoder: Any, latents: Any) -> Array:
    """The base's error is dropped: the edit changes what it did not swap.

    Seen in: interchange in the reconstruction.
    """
    return OURS.interchange(base @ decoder, base, source, decoder, latents)


def _added(rows: Any, base: Any, source: Any, decoder: Any, latents: Any) -> Array:
    """The source's values are added to the base's instead of taking their place.

    Seen in: steering taken for interchange.
    """
    return OURS.interchange(rows, 0 * base, source, decoder, latents)


def _unit_rows_swapped(rows: Any, base: Any, source: Any, decoder: Any, latents: Any) -> Array:
    """Decoder rows are taken for unit vectors.

    Seen in: dictionaries with free decoder rows, read as if they had unit rows.
    """
    return OURS.interchange(rows, base, source, decoder / np.linalg.norm(decoder, axis=1, keepdims=True), latents)


def _alike_is_caused(base: Any, source: Any, clean: Any, edited: Any) -> Array:
    """Pairs that agree count: an edit that does nothing causes what was there.

    Seen in: interchange accuracy over all pairs.
    """
    return np.asarray(edited == source, dtype=np.float64)


def _any_change_is_caused(base: Any, source: Any, clean: Any, edited: Any) -> Array:
    """Any change counts, not only that to the source's value.

    Seen in: flip rates.
    """
    return np.where(np.isnan(OURS.caused(base, source, clean, edited)), np.nan, edited != base)


def _alike_is_isolated(base: Any, source: Any, clean: Any, edited: Any) -> Array:
    """Pairs that agree count: swapping the whole row leaves them as they were.

    Seen in: isolation over all pairs.
    """
    return np.asarray(edited == base, dtype=np.float64)


def _misread_pairs_count(base: Any, source: Any, clean: Any, edited: Any) -> Array:
    """Isolation is staying as it was read, also where that was wrong.

    Seen in: comparing with the clean output.
    """
    return np.where(base != source, (edited == clean).astype(np.float64), np.nan)


def _cause_alone(cause: Array, isolation: Array) -> Array:
    """Isolation is left out: a swap of the whole row is perfect.

    Seen in: intervention accuracy reported alone.
    """
    return np.asarray(cause.mean(axis=-1))


def _parts_that_are_there(cause: Array, isolation: Array) -> Array:
    """Undefined parts are left out of the mean.

    Seen in: nanmean over attributes.
    """
    return np.asarray(np.nanmean(np.concatenate([cause, isolation], axis=-1), axis=-1))


MUTANTS: tuple[Mutant, ...] = (
    mutant("interchange", _error_of_nobody),
    mutant("interchange", _added),
    mutant("interchange", _unit_rows_swapped),
    mutant("caused", _alike_is_caused),
    mutant("caused", _any_change_is_caused),
    mutant("isolated", _alike_is_isolated),
    mutant("isolated", _misread_pairs_count),
    mutant("disentanglement", _cause_alone),
    mutant("disentanglement", _parts_that_are_there),
)
