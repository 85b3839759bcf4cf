"""Which latent of a concept to clamp: of the most active ones, the one whose clamp most often makes the model say it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.act.clamp import Clamp, Maxima
from mohole.act.steering import steer
from mohole.dictionary import Dictionary, SparseCodes
from mohole.model import LanguageModel
from mohole.progress import track

Int64 = NDArray[np.int64]

_CANDIDATES = 6
_TRIAL_TOKENS = 16


@runtime_checkable
class Activity(Maxima, Protocol):
    """What is needed of a catalogue besides maxima: which tokens it encoded, and their codes."""

    @property
    def tokens(self) -> Int64: ...

    @property
    def codes(self) -> SparseCodes: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A latent, and how it did in the trial it was chosen by."""

    latent: int
    share_that_says: float
    """Share of the trial's continuations that say the concept, and do not babble."""
    n_tried: int
    n_prompts: int

    def __str__(self) -> str:
        return (
            f"of the {self.n_tried} latents most active at the concept, the one that makes the model say it most often: "
            f"{self.share_that_says:.0%} of {self.n_prompts} other prompts"
        )


def most_effective(
    model: LanguageModel,
    dictionary: Dictionary,
    catalogue: Activity,
    places: Int64,
    words: set[int],
    prompts: Sequence[str],
    *,
    times_max: float,
) -> Choice:
    """Try the latents most active at `places` on `prompts`, which must not be those that the result is shown on.

    Not simply the best detector: on the built-in model the latents with the highest F1 for the bridge's name change hardly an
    answer at any strength, while one with an F1 of 0.1 to 0.4, active long after the name, turns nearly all into the bridge.

    Args:
        places: tokens (global indices) at which the concept holds.
        words: token ids of which one at least says the concept.
    """
    candidates = _most_active(catalogue, places)
    shares = {}
    with track("steer: trial", len(candidates), "latents") as tracker:
        for latent in candidates:
            clamp = Clamp(latent, times_max=times_max)
            shares[latent] = _share_that_says(model, dictionary, catalogue, clamp, words, prompts)
            tracker.advance()
    best = max(shares, key=lambda latent: shares[latent])  # among equals the more active one, which stands first
    return Choice(best, shares[best], len(shares), len(prompts))


def _most_active(catalogue: Activity, places: Int64) -> list[int]:
    """The latents with the largest summed activation at these tokens, strongest first."""
    codes = catalogue.codes
    rows = torch.from_numpy(np.isin(catalogue.tokens, places))[codes.rows]
    strength = torch.zeros(codes.n_latents, dtype=torch.float64)
    strength.index_add_(0, codes.latents[rows].long(), codes.values[rows].double())
    strongest = strength.argsort(descending=True, stable=True)[:_CANDIDATES]
    return [int(latent) for latent in strongest if strength[latent] > 0] or [int(strongest[0])]


def _share_that_says(
    model: LanguageModel,
    dictionary: Dictionary,
    catalogue: Activity,
    clamp: Clamp,
    words: set[int],
    prompts: Sequence[str],
) -> float:
    """Share of steered continuations that hold one of the words, and in which no token makes up a third."""
    steered = steer(model, dictionary, [clamp], catalogue=catalogue)
    said = 0
    for prompt in prompts:
        tokens = model.tokenizer.prompt(prompt)
        written = steered.generate(tokens, max_new_tokens=_TRIAL_TOKENS).tokens[0, tokens.shape[1] :].tolist()
        said += any(token in words for token in written) and max(Counter(written).values()) <= len(written) / 3
    return said / len(prompts)
