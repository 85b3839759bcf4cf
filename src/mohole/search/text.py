"""Features by a text: run it, and see which features it makes fire, each against the strongest that it is known to fire."""

import numpy as np
from numpy.typing import NDArray

from mohole.dictionary import AnyDictionary
from mohole.errors import ConfigError
from mohole.model import LanguageModel
from mohole.search.hits import Hit, check_limit
from mohole.search.passes import read
from mohole.search.peaks import PeakFinder


def by_text(
    model: LanguageModel,
    dictionary: AnyDictionary,
    text: str,
    *,
    hookpoint: str,
    limit: int,
    maximum: NDArray[np.float32] | None = None,
    context: int | None = None,
) -> list[Hit]:
    """The features that fire on a text, by the largest share of their own maximum that they reach in it; ties by latent.

    A share above 1 is more than the catalogue has seen. Those that never fired there come last, with score 0.

    Args:
        maximum: each latent's largest activation, from its catalogue; None: the score is the activation itself, which
            compares latents of one scale only.
        context: tokens of a window, as the run's corpus has them; None: what the model was made for.

    Raises:
        ConfigError: as `read`, or `limit` below 1, or `maximum` of another dictionary. HookpointError: as `read`.
    """
    check_limit(limit)
    reading = read(model, dictionary, text, hookpoint=hookpoint, context=context)
    n_latents = reading.standin.n_latents
    if maximum is not None and len(maximum) != n_latents:
        raise ConfigError(
            f"maximum: of {len(maximum)} latents, the dictionary has {n_latents}; give that of its own catalogue"
        )
    finder = PeakFinder(n_latents)
    for places, codes in reading.codes():
        finder.add(places, codes)
    peaks = finder.peaks()
    known = np.ones(n_latents, dtype=np.float32) if maximum is None else maximum
    maxima = known[peaks.latents]
    scores = np.where(maxima > 0, peaks.values / np.where(maxima > 0, maxima, 1.0), 0.0)
    order = np.lexsort((peaks.latents, -scores))[:limit]
    hits = []
    for i, score in zip(order.tolist(), scores[order].tolist(), strict=True):
        piece, value = reading.pieces[peaks.places[i]], peaks.values[i]
        if maximum is None:
            why = f"{value:.3g} at “{piece}”"
        elif score == 0:
            why = f"{value:.3g} at “{piece}”; never fired in the catalogue"
        else:
            why = f"{score:.0%} of its maximum at “{piece}”"
        hits.append(Hit(int(peaks.latents[i]), score, why))
    return hits
