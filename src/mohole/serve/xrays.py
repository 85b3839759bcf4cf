"""A text seen through a dictionary: rows of the model's reading into the shape `Xray`. Runs no model."""

from collections.abc import Iterable

from mohole.serve.answers import names_of
from mohole.serve.finders import XrayRows
from mohole.serve.runs import OpenHookpoint
from mohole.serve.shapes import Xray, XrayFeature, XrayToken


def xray_facts(place: OpenHookpoint, rows: XrayRows, top: int) -> Xray:
    """Each token's features, and the `top` of the whole text."""
    maximum = place.catalogue.maximum
    latents = sorted({latent for latent, _ in _pairs(rows)})
    names = dict(zip(latents, names_of(place, latents, place.by_hand), strict=True))

    def feature(latent: int, activation: float) -> XrayFeature:
        of_maximum = _share(activation, float(maximum[latent]))
        return XrayFeature(latent=latent, label=names[latent], activation=activation, of_maximum=of_maximum)

    tokens = tuple(
        XrayToken(token=token, features=tuple(feature(*pair) for pair in zip(latents, values, strict=True)))
        for token, latents, values in zip(rows.tokens, rows.latents, rows.activations, strict=True)
    )
    best = (feature(latent, value) for latent, value in strongest(place, rows)[:top])
    return Xray(hookpoint=place.name, tokens=tokens, strongest=tuple(best), along=rows.along)


def strongest(place: OpenHookpoint, rows: XrayRows) -> list[tuple[int, float]]:
    """Every latent seen with its largest activation in the text, by its share of the maximum; those never seen before last."""
    largest: dict[int, float] = {}
    for latent, value in _pairs(rows):
        largest[latent] = max(value, largest.get(latent, 0.0))

    def rank(pair: tuple[int, float]) -> tuple[float, int]:
        latent, value = pair
        return -(share_of_maximum(place, latent, value) or 0.0), latent

    return sorted(largest.items(), key=rank)


def share_of_maximum(place: OpenHookpoint, latent: int, activation: float) -> float | None:
    """Of what the latent reached in the catalogue; None where it never fired there."""
    return _share(activation, float(place.catalogue.maximum[latent]))


def _share(activation: float, maximum: float) -> float | None:
    return activation / maximum if maximum > 0 else None


def _pairs(rows: XrayRows) -> Iterable[tuple[int, float]]:
    for latents, values in zip(rows.latents, rows.activations, strict=True):
        yield from zip(latents, values, strict=True)
