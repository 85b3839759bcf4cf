"""What must be true of matching the latents of two dictionaries, and of what chance gives."""

import math
from collections.abc import Iterator
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.directed import random_rows
from mohole.metrics.known_answers.rows import turn
from mohole.metrics.matching import Matching

_EYE = torch.eye(8, dtype=torch.float64)


def chance_is_known(d: Definitions) -> Iterator[Answer]:
    """In 3 dimensions the largest of n random cosines is (n - 1) / (n + 1) on average, of one it is 0; in 2, of three, 6 / pi^2.

    And what 100 random directions give among 200 in 24 dimensions, within 5 standard errors.
    """
    for n in (1, 2, 9, 1000):
        yield Answer(f"largest of {n} cosines in 3 dimensions", d.expected_max_cosine(3, n), (n - 1) / (n + 1))
    yield Answer("largest of 3 cosines in 2 dimensions", d.expected_max_cosine(2, 3), 6 / math.pi**2)
    yield Answer("one cosine in 2304 dimensions", d.expected_max_cosine(2304, 1), 0.0)
    best, _ = d.best_cosine(random_rows(100, 24), random_rows(200, 24, first=1000))
    within = 5 * float(best.std()) / 10
    yield Answer("largest of 200 cosines in 24 dimensions", d.expected_max_cosine(24, 200), float(best.mean()), within)
    found = d.mmcs(random_rows(100, 24), random_rows(200, 24, first=1000))
    yield Answer("MMCS of random rows over its null, forward", found.forward - found.forward_null, 0.0, within)
    yield Answer("MMCS of random rows over its null, backward", found.backward - found.backward_null, 0.0, within)


def the_same_rows_are_found_again(d: Definitions) -> Iterator[Answer]:
    """Mixed and stretched rows have MMCS 1; upside down in an orthogonal set 0; a quarter of a set 1 in it, 1/4 back."""
    rows = turn(8)
    mixed = rows[torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])] * torch.arange(1, 9)[:, None]
    for name, other, forward, backward in (
        ("mixed", mixed, 1.0, 1.0),
        ("upside down", -rows, 0.0, 0.0),
        ("and a row without length", torch.cat([mixed, 0 * mixed[:1]]), 1.0, 1.0),
    ):
        found = d.mmcs(rows, other)
        yield Answer(f"MMCS of rows {name}", found.forward, forward)
        yield Answer(f"MMCS back of rows {name}", found.backward, backward)
    found = d.mmcs(rows[:2], rows)
    yield Answer("MMCS of two rows among eight", found.forward, 1.0)
    yield Answer("MMCS of eight rows among two", found.backward, 0.25)


def one_to_one_is_the_best_of_all(d: Definitions) -> Iterator[Answer]:
    """No other pairing of 5 with 6 has a larger sum of cosines; greedy choice loses. A flipped latent is no match."""
    one, other = random_rows(5, 3), random_rows(6, 3, first=50)
    unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (one, other)]
    cosines = (unit[0] @ unit[1].T).tolist()
    true = max(sum(cosines[row][column] for row, column in enumerate(way)) for way in permutations(range(6), 5))
    found = d.hungarian(one, other)
    yield Answer("sum of matched cosines", float(found.cosine.sum()), true)
    yield Answer("pairs", float(len(set(found.one)) + len(set(found.other))), 10.0, 0)
    flipped = d.hungarian(_EYE[:3], torch.stack([_EYE[1], -_EYE[0], _EYE[2]]))
    yield Answer("sum of matched cosines, one flipped", float(flipped.cosine.sum()), 1.0)


def each_is_the_others_nearest(d: Definitions) -> Iterator[Answer]:
    """A family that shares a nearest latent has one pair with it, the closest; the same pairs in blocks of any size."""
    one = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[0.0, 0.1, 1.0], [3.0, 0.0, 0.0]], dtype=torch.float64)
    for block in (1, 2, 1024):
        found = d.mutual_nearest(one, other, block=block)
        pairs = [(int(mine), int(theirs)) for mine, theirs in zip(found.one, found.other, strict=True)]
        yield Answer(f"mutual pairs, blocks of {block}", float(pairs == [(0, 1), (2, 0)]), 1.0)
        yield Answer(f"cosine of the second, blocks of {block}", float(found.cosine[-1]), 1 / 1.01**0.5)


def shared_means_decoder_and_encoder(d: Definitions) -> Iterator[Answer]:
    """Of 8 latents two have each other's encoder, one a cosine of 0.6, one a decoder, one an encoder of its own: 3 are shared.

    No other matching is as good as the one meant, by 0.6 at least: rounding does not choose.
    """
    own, turned = torch.eye(10), turn(10)
    decoder, encoder = own[:8].clone(), turned[:8].clone()
    encoder[[0, 1]] = encoder[[1, 0]]
    decoder[2] = 0.6 * own[2] + 0.8 * own[8]
    decoder[3], encoder[4] = own[9], turned[9]
    ways: tuple[tuple[str, dict[str, object]], ...] = (
        ("hungarian", {}),
        ("mutual nearest", {"match": d.mutual_nearest}),
    )
    for name, settings in ways:
        found: Matching = d.shared((own[:8], decoder), (turned[:8], encoder), **settings)
        yield Answer(f"shared latents by {name}", float(len(found.one)), 3.0, 0)
        yield Answer(f"ids of shared latents by {name}", float(found.one.sum()), 5.0 + 6.0 + 7.0, 0)


def stable_latents_are_in_every_seed(d: Definitions) -> Iterator[Answer]:
    """Of three seeds, a latent in all has 1, one in two of them 1/2, one of its own 0; one alone has no stability."""

    def rows(*axes: int) -> Float[Tensor, "latent 8"]:
        return 3 * _EYE[list(axes)]

    found = d.stability([rows(0, 1, 2), rows(1, 0, 3, 4), rows(5, 1)])
    for seed, true in enumerate(((0.5, 1.0, 0.0), (1.0, 0.5, 0.0, 0.0), (0.0, 1.0))):
        for latent, value in enumerate(true):
            yield Answer(f"stability of latent {latent} of seed {seed}", float(found[seed][latent]), value)


CHECKS: tuple[Check, ...] = (
    chance_is_known, the_same_rows_are_found_again, one_to_one_is_the_best_of_all, each_is_the_others_nearest,
    shared_means_decoder_and_encoder, stable_latents_are_in_every_seed,
)  # fmt: skip
