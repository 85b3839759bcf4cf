"""A text seen through a dictionary: rows of the model's reading into the shape `Xray`. Runs no model."""

import numpy as np

from mohole.serve.answers import names_of
from mohole.serve.finders import XrayRows
from mohole.serve.runs import OpenHookpoint
from mohole.serve.shapes import Xray, XrayFeature, XrayToken


def xray_facts(place: OpenHookpoint, rows: XrayRows, top: int) -> Xray:
    """Each token's features, and the `top` of the whole text."""
    maximum = place.catalogue.maximum
    best = strongest(place, rows, top)
    latents = sorted({latent for each in rows.latents for latent in each} | {latent for latent, _, _ in best})
    names = dict(zip(latents, names_of(place, latents, place.by_hand), strict=True))

    def feature(latent: int, activation: float) -> XrayFeature:
        of_maximum = _share(activation, float(maximum[latent]))
        return XrayFeature(latent=latent, label=names[latent], activation=activation, of_maximum=of_maximum)

    tokens = tuple(
        XrayToken(token=token, features=tuple(feature(*pair) for pair in zip(latents, values, strict=True)))
        for token, latents, values in zip(rows.tokens, rows.latents, rows.activations, strict=True)
    )
    shown = tuple(feature(latent, value) for latent, value, _ in best)
    return Xray(hookpoint=place.name, tokens=tokens, strongest=shown, along=rows.along)


def strongest(place: OpenHookpoint, rows: XrayRows, n: int) -> list[tuple[int, float, int]]:
    """The n latents that reach the largest share of their maximum in the text; those never seen before last, ties by latent.

    All that fire take part: one that is far from the strongest of any token may be the strongest that it has ever been.

    Returns:
        (latent, its largest activation, the token where).
    """
    peaks = rows.peaks
    maxima = place.catalogue.maximum[peaks.latents].astype(np.float64)
    shares = np.divide(peaks.values, maxima, out=np.zeros(len(maxima)), where=maxima > 0)
    order = np.lexsort((peaks.latents, -shares))[:n]
    return list(
        zip(peaks.latents[order].tolist(), peaks.values[order].tolist(), peaks.places[order].tolist(), strict=True)
    )


def share_of_maximum(place: OpenHookpoint, latent: int, activation: float) -> float | None:
    """Of what the latent reached in the catalogue; None where it never fired there."""
    return _share(activation, float(place.catalogue.maximum[latent]))


def _share(activation: float, maximum: float) -> float | None:
    return activation / maximum if maximum > 0 else None
