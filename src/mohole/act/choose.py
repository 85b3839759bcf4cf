"""Which latent to clamp: of several, the one whose clamp makes the model say what it stands for, and harms other text least."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mohole.act.interventions import Clamp
from mohole.act.sources import Maxima
from mohole.act.steering import Steered, steer
from mohole.dictionary import Dictionary, SparseCodes
from mohole.model import LanguageModel
from mohole.progress import track

Int64 = NDArray[np.int64]

_TRIAL_TOKENS = 16


@runtime_checkable
class Activity(Protocol):
    """What is needed of a catalogue to know where latents are active: which tokens it encoded, and their codes."""

    @property
    def tokens(self) -> Int64: ...

    @property
    def codes(self) -> SparseCodes: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A latent, and how it did in the trial it was chosen by."""

    latent: int
    share_turned: float
    """Share of the trial's prompts whose continuation says it only when the latent is clamped, and does not babble."""
    harm: float
    """Nats per token that the clamp costs on other text."""
    n_tried: int
    n_prompts: int

    def __str__(self) -> str:
        return (
            f"of {self.n_tried} latents the one whose clamp does most and harms least: it turns {self.share_turned:.0%} of "
            f"{self.n_prompts} other prompts, and costs {self.harm:.2f} nats per token on other text"
        )


def most_effective(
    model: LanguageModel,
    dictionary: Dictionary,
    catalogue: Maxima,
    candidates: Mapping[int, set[int]],
    prompts: Sequence[str],
    texts: Sequence[Int[Tensor, "1 _"]],
    *,
    times_max: float,
) -> Choice:
    """Try each latent on `prompts`, which must not be those that the result is shown on.

    Of those within one prompt of the best, the one that harms `texts` least; among equals the first.

    Not simply the best detector: on the built-in model the latents with the highest F1 for the bridge's name change hardly an
    answer at any strength, while one with an F1 of 0.1 to 0.4, active long after the name, turns nearly all into the bridge.

    Args:
        candidates: for each latent the token ids of which one at least says what it stands for.
        texts: token ids of other text, begin-of-text token included, of two tokens at least.
    """
    plain = [_continued(model, prompt, None) for prompt in prompts]
    clean = [_nats(model.logits(tokens), tokens) for tokens in texts]
    shares, harms = {}, {}
    with track("steer: trial", len(candidates), "latents") as tracker:
        for latent, words in candidates.items():
            steered = steer(model, dictionary, [Clamp(latent, times_max=times_max)], catalogue=catalogue)
            written = [_continued(model, prompt, steered) for prompt in prompts]
            turned = [_says(new, words) and not _says(old, words) for new, old in zip(written, plain, strict=True)]
            shares[latent] = sum(turned) / len(prompts)
            harms[latent] = _harm(steered, texts, clean)
            tracker.advance()
    best = max(shares.values())
    near = [latent for latent in candidates if shares[latent] >= best - 1.001 / len(prompts)]
    chosen = min(near, key=lambda latent: harms[latent])
    return Choice(chosen, shares[chosen], harms[chosen], len(candidates), len(prompts))


def most_active(catalogue: Activity, places: Int64, n: int) -> list[int]:
    """The latents with the largest summed activation at these tokens, strongest first; none that is silent there."""
    codes = catalogue.codes
    rows = torch.from_numpy(np.isin(catalogue.tokens, places))[codes.rows]
    strength = torch.zeros(codes.n_latents, dtype=torch.float64)
    strength.index_add_(0, codes.latents[rows].long(), codes.values[rows].double())
    return [int(latent) for latent in strength.argsort(descending=True, stable=True)[:n] if strength[latent] > 0]


def _continued(model: LanguageModel, prompt: str, steered: Steered | None) -> list[int]:
    """What is written after a prompt, to its end: behind the end-of-text token is another text, which nobody is shown."""
    tokens, eos = model.tokenizer.prompt(prompt), model.tokenizer.eos_id
    stop_tokens = [] if eos is None else [eos]
    if steered is None:
        whole = model.generate(tokens, max_new_tokens=_TRIAL_TOKENS, stop_tokens=stop_tokens)
    else:
        whole = steered.generate(tokens, max_new_tokens=_TRIAL_TOKENS, stop_tokens=stop_tokens).tokens
    written: list[int] = whole[0, tokens.shape[1] :].tolist()
    return written


def _says(written: list[int], words: set[int]) -> bool:
    """Is one of the words in it, and does no token make up more than a third?"""
    return any(token in words for token in written) and max(Counter(written).values()) <= len(written) / 3


def _harm(steered: Steered, texts: Sequence[Tensor], clean: Sequence[float]) -> float:
    """Mean loss with the clamp less mean loss without it, over all next tokens of the texts, in nats.

    Args:
        clean: summed loss of each text without it. The same for every latent, so the model is asked only once.
    """
    excess, n_tokens = 0.0, 0
    for tokens, without in zip(texts, clean, strict=True):
        excess += _nats(steered.logits(tokens), tokens)
        excess -= without
        n_tokens += tokens.shape[1] - 1
    return excess / max(n_tokens, 1)


def _nats(logits: Tensor, tokens: Tensor) -> float:
    """Summed loss of a text's next tokens."""
    return float(cross_entropy(logits[0, :-1].float(), tokens[0, 1:].to(logits.device), reduction="sum"))
