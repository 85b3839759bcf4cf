"""Wrong ways to measure feature absorption."""

from dataclasses import replace
from typing import Any

import numpy as np

from mohole.metrics.absorption import Absorbed
from mohole.metrics.definitions import OURS
from mohole.metrics.mutants.mutant import Mutant, mutant


def _cosines_for_products(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """Parts are weighted by cosines: a decoder row's length changes who absorbs.

    Seen in: SAEBench #88, feature absorption.
    """
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    return OURS.absorption(rows, codes, unit, bias, direction, main, least_projection=least_projection)


def _bias_forgotten(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """The projection is measured from zero, though no latent carries the decoder's bias.

    Seen in: SAEBench feature absorption, b_dec left out.
    """
    return OURS.absorption(rows, codes, decoder, 0 * bias, direction, main, least_projection=least_projection)


def _nothing_is_divided(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """Rows that do not point along the probe are decided as well.

    Seen in: SAEBench feature absorption, a ratio that explodes where x.p goes to 0.
    """
    return OURS.absorption(rows, codes, decoder, bias, direction, main, least_projection=-np.inf)


def _length_of_the_probe(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """The main latents' part is put in the probe's own length, the rest in rows'.

    Seen in: a direction normalised in one place of two.
    """
    found = OURS.absorption(rows, codes, decoder, bias, direction, main, least_projection=least_projection)
    length = np.linalg.norm(direction)
    return replace(found, share=found.share / (found.share + length * (1 - found.share)))


def _any_silence(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """Wherever the main latents are silent they are called absorbed, whoever carries the rest.

    Seen in: missed positives counted as absorption.
    """
    found = OURS.absorption(rows, codes, decoder, bias, direction, main, least_projection=least_projection)
    return replace(found, full=found.defined & ~codes[:, main].toarray().any(axis=1))


def _any_part_counts(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """Whoever carries a little has absorbed it, where many latents carry a little each.

    Seen in: a share without a least part: random directions score .7.
    """
    found = OURS.absorption(rows, codes, decoder, bias, direction, main, least_projection=least_projection)
    silent = ~codes[:, main].toarray().any(axis=1)
    return replace(found, share=np.where(silent & found.defined, 1.0, found.share))


def _main_absorb_themselves(
    rows: Any, codes: Any, decoder: Any, bias: Any, direction: Any, main: Any, *, least_projection: float
) -> Absorbed:
    """The label's own latents are among those that may absorb it.

    Seen in: the top latent taken over all latents.
    """
    return OURS.absorption(rows, codes, decoder, bias, direction, main[:0], least_projection=least_projection)


MUTANTS: tuple[Mutant, ...] = (
    mutant("absorption", _cosines_for_products),
    mutant("absorption", _bias_forgotten),
    mutant("absorption", _nothing_is_divided),
    mutant("absorption", _length_of_the_probe),
    mutant("absorption", _any_silence),
    mutant("absorption", _any_part_counts),
    mutant("absorption", _main_absorb_themselves),
)
