"""The sampling loop: one token after another from next-token logits. Knows nothing of models or hooks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.errors import ConfigError, NumericsError
from mohole.keys import Use, uniform

Step = Callable[[Tensor, Any, int], tuple[Tensor, Any]]  # (token ids, cache, first position) -> (last logits, cache)


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
    if bool(torch.isnan(logits).any()):
        raise NumericsError(f"logits: NaN at generation step {step}; an edit is too strong, or the dtype too narrow")
    if temperature == 0:
        return (logits == logits.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)
    cumulative = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    if isinstance(seed, int):
        drawn = uniform(seed, Use.GENERATION, np.arange(len(logits)), step)
    else:
        drawn = np.concatenate([uniform(each, Use.GENERATION, np.zeros(1, dtype=np.int64), step) for each in seed])
    targets = torch.from_numpy(drawn).to(logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
