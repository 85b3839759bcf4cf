"""A direction: a vector at a hookpoint, by name and with its origin; and directions as differences of means."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.errors import ConfigError
from mohole.model import LanguageModel


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector at one hookpoint, as long as it was found: its length is part of what it says."""

    hookpoint: str
    vector: Float[Tensor, " d"] = field(repr=False)
    name: str
    origin: str = ""
    """How it was found, for people."""

    def __post_init__(self) -> None:
        """Raises: ConfigError: no vector, one with a NaN or an infinity in it, or of length 0."""
        what = f"{self.name} at {self.hookpoint}"
        if self.vector.ndim != 1 or self.vector.numel() == 0:
            raise ConfigError(f"{what}: shape {list(self.vector.shape)}, where one row of numbers is needed")
        if not bool(torch.isfinite(self.vector).all()):
            raise ConfigError(f"{what}: a NaN or an infinity is in it; find the direction again")
        if not bool(self.vector.any()):
            raise ConfigError(f"{what}: all 0, which is no direction")


def difference_of_means(
    model: LanguageModel,
    positive: Sequence[str | Int[Tensor, "1 _"]],
    negative: Sequence[str | Int[Tensor, "1 _"]],
    hookpoints: Sequence[str],
    *,
    name: str,
    over: Literal["last", "text"] = "last",
) -> tuple[Direction, ...]:
    """Mean row of some texts less the mean row of others, at each hookpoint. Sums are made in float64.

    Args:
        positive, negative: texts; or their token ids, as `model.tokenizer.prompt` gives them.
        over: the rows of a text that count: its last token's, or the mean over all but begin-of-text, each text alike.

    Raises:
        ConfigError: one of the sides is empty, or they do not differ.
    """
    sides = {"positive": positive, "negative": negative}
    for side, texts in sides.items():
        if not texts:
            raise ConfigError(f"{name}: no {side} text; a difference needs both sides")
    means = {side: _means(model, texts, hookpoints, over) for side, texts in sides.items()}
    origin = f"mean of {len(positive)} texts less mean of {len(negative)}, {over} token{'s' if over == 'text' else ''}"
    return tuple(
        Direction(hookpoint, (means["positive"][hookpoint] - means["negative"][hookpoint]).float(), name, origin)
        for hookpoint in hookpoints
    )


def _means(
    model: LanguageModel, texts: Sequence[str | Tensor], hookpoints: Sequence[str], over: str
) -> dict[str, Float[Tensor, " d"]]:
    sums: dict[str, Tensor] = {}
    for text in texts:
        tokens = model.tokenizer.prompt(text) if isinstance(text, str) else text
        first = int(model.bos_id is not None and int(tokens[0, 0]) == model.bos_id)
        if tokens.shape[1] <= first:
            raise ConfigError("a text without a token has no row; leave it out")
        for hookpoint, rows in model.read(tokens, hookpoints, held_as=torch.float64).items():
            row = (rows[0, -1] if over == "last" else rows[0, first:].mean(0)).cpu()
            sums[hookpoint] = sums.get(hookpoint, torch.zeros_like(row)) + row
    return {hookpoint: total / len(texts) for hookpoint, total in sums.items()}
