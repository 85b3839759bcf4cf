"""A text seen through a dictionary: rows of the model's reading into the shape `Xray`. Runs no model."""

from collections.abc import Iterable

from mohole.serve.answers import text_of
from mohole.serve.finders import XrayRows
from mohole.serve.runs import OpenHookpoint
from mohole.serve.shapes import Xray, XrayFeature, XrayToken


def xray_facts(place: OpenHookpoint, rows: XrayRows, top: int) -> Xray:
    """Each token's features, and the `top` of the whole text."""
    tokens = tuple(
        XrayToken(token=token, features=tuple(_feature(place, *pair) for pair in zip(latents, values, strict=True)))
        for token, latents, values in zip(rows.tokens, rows.latents, rows.activations, strict=True)
    )
    best = (_feature(place, latent, value) for latent, value in strongest(place, rows)[:top])
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
    maximum = float(place.catalogue.maximum[latent])
    return activation / maximum if maximum > 0 else None


def _feature(place: OpenHookpoint, latent: int, activation: float) -> XrayFeature:
    return XrayFeature(
        latent=latent,
        label=text_of(place, latent),
        activation=activation,
        of_maximum=share_of_maximum(place, latent, activation),
    )


def _pairs(rows: XrayRows) -> Iterable[tuple[int, float]]:
    for latents, values in zip(rows.latents, rows.activations, strict=True):
        yield from zip(latents, values, strict=True)
