"""The sampling loop: one token after another from next-token logits. Knows nothing of models or hooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mohole.errors import ConfigError, NumericsError
from mohole.keys import Use, uniform, uniform_of_each

Step = Callable[[Tensor, Any, int], tuple[Tensor, Any]]  # (token ids, cache, first position) -> (last logits, cache)

_LEAST_TEMPERATURE = 1e-250
"""Float32's largest logit over it is still a float64. Over less it may be none, and NaN draws any token."""


def generate(
    step: Step,
    tokens: Int[Tensor, "batch position"],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int | Sequence[int],
    use_cache: bool,
    stop_tokens: Sequence[int],
    on_token: Callable[[Tensor], None] | None = None,
) -> Int[Tensor, "batch longer"]:
    """`tokens` continued by repeated calls of `step`; see LanguageModel.generate.

    With a cache each call gets only what the cache does not hold yet; without, the whole sequence from position 0.
    """
    if temperature < 0:
        raise ConfigError(f"temperature: {temperature} is negative; 0 is greedy, 1 the model's own distribution")
    if not isinstance(seed, int) and len(seed) != len(tokens):
        raise ConfigError(f"seed: {len(seed)} of them for {len(tokens)} rows; give one, or one for each")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens: {max_new_tokens} is negative")
    stops = torch.tensor(list(stop_tokens), dtype=torch.int64, device=tokens.device)
    stopped = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    sequence, cache, n_cached = tokens.long(), None, 0
    for index in range(max_new_tokens):
        logits, cache = step(sequence[:, n_cached:], cache, n_cached)
        n_cached = sequence.shape[1] if use_cache else 0
        chosen = choose(logits, temperature=temperature, seed=seed, step=index)
        chosen = torch.where(stopped, sequence[:, -1], chosen)
        sequence = torch.cat([sequence, chosen[:, None]], dim=1)
        if on_token is not None:
            on_token(chosen)
        stopped |= torch.isin(chosen, stops)
        if bool(stopped.all()):
            break
    return sequence


def choose(
    logits: Float[Tensor, "batch vocab"], *, temperature: float, seed: int | Sequence[int], step: int
) -> Int[Tensor, " batch"]:
    """One token per row: the first of the highest at temperature 0, else drawn from softmax(logits / temperature).

    The draw inverts the cumulative distribution at a uniform number keyed by (seed, row, step); with a seed for each row, by
    (its seed, 0, step), as if it were the only row.

    Raises:
        NumericsError: logits that are not numbers.
    """
    _need_numbers(logits, step)
    if temperature == 0:
        return likeliest(logits)
    if isinstance(seed, int):
        drawn = uniform(seed, Use.GENERATION, np.arange(len(logits)), step)
    else:
        drawn = uniform_of_each(np.array(seed, dtype=np.uint64), Use.GENERATION, np.full(len(seed), step))
    return _drawn(torch.softmax(logits.double() / max(temperature, _LEAST_TEMPERATURE), -1), drawn)


def likeliest(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """The first of the highest."""
    return (logits == logits.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token of one text is chosen."""

    temperature: float = 1.0
    """0: the likeliest."""
    top_p: float = 1.0
    """Only among the likeliest tokens that have this much of the probability together; the last of them belongs to them."""
    seed: int = 0
    """0 to 2^64 - 1."""


def choose_each(
    logits: Float[Tensor, "batch vocab"], ways: Sequence[Sampling], steps: Sequence[int]
) -> Int[Tensor, " batch"]:
    """One token per row, each chosen its own way at its own step: what `choose` gives of the row alone, with its seed.

    Raises:
        NumericsError: logits that are not numbers, of any row.
    """
    _need_numbers(logits, max(steps))
    chosen = likeliest(logits)
    drawing = [row for row, way in enumerate(ways) if way.temperature > 0]
    if not drawing:
        return chosen
    own = [ways[row] for row in drawing]
    temperatures = torch.tensor([way.temperature for way in own], dtype=torch.float64, device=logits.device)
    shares = torch.softmax(logits[drawing].double() / temperatures.clamp(min=_LEAST_TEMPERATURE)[:, None], -1)
    narrow = [i for i, way in enumerate(own) if way.top_p < 1]
    if narrow:
        bounds = torch.tensor([own[i].top_p for i in narrow], dtype=torch.float64, device=logits.device)
        shares[narrow] = _nucleus(shares[narrow], bounds)
    seeds = np.array([way.seed for way in own], dtype=np.uint64)
    drawn = uniform_of_each(seeds, Use.GENERATION, np.array([steps[row] for row in drawing]))
    chosen[drawing] = _drawn(shares, drawn)
    return chosen


def _drawn(shares: Tensor, numbers: NDArray[np.float64]) -> Tensor:
    """Where the cumulative distribution of each row passes its number."""
    cumulative = shares.cumsum(-1)
    targets = torch.from_numpy(numbers).to(shares.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=shares.shape[-1] - 1)


def _nucleus(shares: Tensor, bounds: Tensor) -> Tensor:
    """Zeros but for the likeliest whose shares, without the last one's, are below the bound. Ties: the lowest id."""
    ordered, places = shares.sort(dim=-1, descending=True, stable=True)
    kept = ordered.cumsum(-1) - ordered < bounds[:, None]
    kept[:, 0] = True
    return torch.zeros_like(shares).scatter(-1, places, ordered * kept)


def _need_numbers(logits: Tensor, step: int) -> None:
    if bool(torch.isnan(logits).any()):
        raise NumericsError(f"logits: NaN at generation step {step}; an edit is too strong, or the dtype too narrow")
