"""What must be true of the difference of two models by a crosscoder's latents."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mohole.metrics.definitions import Definitions
from mohole.metrics.diffing import LatentScaling
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.coded import coded
from mohole.metrics.known_answers.directed import random_rows

_N, _L = 30, 5
_INFINITY, _NAN = float("inf"), float("nan")

Pair = tuple[Tensor, Tensor]


def lengths_say_whose_a_latent_is(d: Definitions) -> Iterator[Answer]:
    """Only in the first 0, in both alike 1/2, only in the second 1; exchanged, one minus it; in neither, undefined."""
    one = torch.tensor([2.0, 3.0, 0.0, 1.0, 0.0])
    other = torch.tensor([0.0, 3.0, 0.5, 4.0, 0.0])
    true = (0.0, 0.5, 1.0, 0.875, _NAN)
    for latent, (found, back) in enumerate(zip(d.relative_norm(one, other), d.relative_norm(other, one), strict=True)):
        yield Answer(f"relative norm of latent {latent}", float(found), true[latent])
        yield Answer(f"relative norm of latent {latent}, exchanged", float(back), 1 - true[latent])


def _codes() -> Tensor:
    """Five latents that never fire together, so that what is asked of one is not in another's part."""
    codes = torch.zeros(_N, _L, dtype=torch.float64)
    codes[torch.arange(_N), torch.arange(_N) % (_L + 1) % _L] = random_rows(_N, 1)[:, 0].abs() + 0.5
    return codes


def _scaled(d: Definitions, codes: Tensor, decoders: Pair, targets: Pair, *, batch: int, n_ranks: int) -> LatentScaling:
    ranks = [d.latent_scaling(decoders) for _ in range(n_ranks)]
    for turn, first in enumerate(range(0, _N, batch)):
        part = slice(first, first + batch)
        outputs = codes[part] @ decoders[0], codes[part] @ decoders[1]
        ranks[turn % n_ranks].add(coded(codes[part]), (targets[0][part], targets[1][part]), outputs)
    for rank in ranks[1:]:
        ranks[0].merge(rank)
    return ranks[0]


def _numbers(name: str, found: object, true: tuple[float, ...]) -> Iterator[Answer]:
    for latent, value in enumerate(true):
        yield Answer(f"{name} of latent {latent}", float(found[latent]), value)  # type: ignore[index]


def what_a_penalty_shrank_is_in_the_error(d: Definitions) -> Iterator[Answer]:
    """Five latents in both models, half as strong in the first, absent there, and in both but with rows shrunk to 0 and 1/2.

    nu of the error is 1, 1/2, 0, 1, 1: it does not ask how long a row is. With the models exchanged it is one over that.
    """
    codes, decoder = _codes(), 2 * torch.eye(_L, 7, dtype=torch.float64)
    strength, kept = (
        torch.tensor(numbers, dtype=torch.float64)[:, None]
        for numbers in ((1.0, 0.5, 0.0, 1.0, 1.0), (1.0, 0.5, 0.0, 0.0, 0.5))
    )
    decoders, targets = (kept * decoder, decoder), (codes @ (strength * decoder), codes @ decoder)
    for batch, n_ranks in ((_N, 1), (4, 1), (1, 3)):
        found = _scaled(d, codes, decoders, targets, batch=batch, n_ranks=n_ranks)
        yield from _numbers(f"nu of the error, batches of {batch}", found.nu_error, (1.0, 0.5, 0.0, 1.0, 1.0))
    yield from _numbers("beta in the second model", found.error[1], (1.0,) * _L)
    back = _scaled(d, codes, decoders[::-1], targets[::-1], batch=_N, n_ranks=1)
    yield from _numbers("nu of the error, exchanged", back.nu_error, (1.0, 2.0, _INFINITY, 1.0, 1.0))


def what_went_to_another_latent_is_in_the_rest(d: Definitions) -> Iterator[Answer]:
    """Other latents make a latent's direction with 4/3 of its strength in the first model, with 1 in the second: nu 4/3.

    Latent 1 fires with latent 0 and adds its direction in both models, latent 2 adds a third of it in the first. With the models
    exchanged it is 3/4. A latent that never fires has none.
    """
    direction = torch.zeros(7, dtype=torch.float64)
    direction[0] = 2.0
    other = torch.stack([direction, 0.5 * direction, 0 * direction, direction.roll(1)])
    one = torch.stack([0 * direction, 0.5 * direction, direction / 3, direction.roll(1)])
    first = random_rows(_N, 1)[:, 0].abs() + 0.5
    codes = torch.stack([first, 2 * first, first, 0 * first], dim=1)
    found = _scaled(d, codes, (one, other), (codes @ one, codes @ other), batch=7, n_ranks=2)
    back = _scaled(d, codes, (other, one), (codes @ other, codes @ one), batch=_N, n_ranks=1)
    yield Answer("beta of the rest, first model", float(found.rest[0, 0]), 4 / 3)
    yield Answer("beta of the rest, second model", float(found.rest[1, 0]), 1.0)
    yield Answer("nu of the rest", float(found.nu_rest[0]), 4 / 3)
    yield Answer("nu of the rest, exchanged", float(back.nu_rest[0]), 3 / 4)
    yield Answer("nu of the rest, never firing", float(found.nu_rest[3]), _NAN)


def the_same_model_twice_differs_in_nothing(d: Definitions) -> Iterator[Answer]:
    """Two copies with any codes and an error: relative norm 1/2 and nu 1 for every latent."""
    codes = (random_rows(_N, _L) - 0.3).clamp(min=0)
    decoder, targets = random_rows(_L, 4, first=100), random_rows(_N, 4, first=200)
    found = _scaled(d, codes, (decoder, decoder), (targets, targets), batch=8, n_ranks=2)
    norms = d.row_norms(decoder)
    yield from _numbers("relative norm", d.relative_norm(norms, norms), (0.5,) * _L)
    yield from _numbers("nu of the error", found.nu_error, (1.0,) * _L)
    yield from _numbers("nu of the rest", found.nu_rest, (1.0,) * _L)
    share = targets - codes @ decoder + codes[:, :1] * decoder[:1]
    true = float((codes[:, 0] * (share @ decoder[0])).sum() / (decoder[0].square().sum() * codes[:, 0].square().sum()))
    yield Answer("beta of the error, by its definition", float(found.error[0, 0]), true)


CHECKS: tuple[Check, ...] = (
    lengths_say_whose_a_latent_is, what_a_penalty_shrank_is_in_the_error, what_went_to_another_latent_is_in_the_rest,
    the_same_model_twice_differs_in_nothing,
)  # fmt: skip
