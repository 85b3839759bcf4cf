"""What must be true of lengths and cosines of a dictionary's directions."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.keys import Use, normal
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.rows import turn


def random_rows(n: int, d: int, *, first: int = 0) -> Float[Tensor, "n d"]:
    """Directions that are uniform on the sphere, of different lengths."""
    return torch.from_numpy(normal(0, Use.RANDOM_DICTIONARY, np.arange(first, first + n), d))


def lengths_are_of_rows(d: Definitions) -> Iterator[Answer]:
    """(3, 4) has length 5 and (0, 2) 2: rows are latents."""
    for row, (found, true) in enumerate(
        zip(d.row_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]])), (5.0, 2.0), strict=True)
    ):
        yield Answer(f"length of row {row}", float(found), true)


def cosines_know_direction_alone(d: Definitions) -> Iterator[Answer]:
    """Turned by 60 degrees is 1/2, upside down -1, whatever the lengths; with a row of length zero there is no cosine."""
    angle = math.pi / 3
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[math.cos(angle), math.sin(angle)], [0.0, -1.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    true = (0.5, -1.0, 1.0, float("nan"))
    for scale in (1.0, 1e-200, 1e6):
        for row, found in enumerate(d.paired_cosine(one, scale * other)):
            yield Answer(f"cosine of row {row}, times {scale:g}", float(found), true[row])
    with_mean = d.cosine_with(other, 5 * torch.tensor([1.0, 0.0], dtype=torch.float64))
    for row, true_of_row in enumerate((0.5, 0.0, 0.5**0.5, 1.0)):
        yield Answer(f"cosine of row {row} with the mean", float(with_mean[row]), true_of_row)


def the_nearest_other_is_found_in_any_blocks(d: Definitions) -> Iterator[Answer]:
    """A copy of a row is its nearest, an opposite is not; in blocks of any size what a full matrix gives; never itself."""
    rows = random_rows(13, 5)
    rows[11] = 3 * rows[4]
    rows[12] = -2 * rows[9]
    unit = rows / rows.norm(dim=1, keepdim=True)
    full = (unit @ unit.T).fill_diagonal_(-2)
    for block in (2, 5, 1024):
        cosine, which = d.nearest_other(rows, block=block)
        yield Answer(f"nearest cosines, blocks of {block}", float((cosine - full.amax(1)).abs().max()), 0.0)
        yield Answer(f"nearest is another, blocks of {block}", float((which != torch.arange(13)).sum()), 13.0)
        yield Answer(f"nearest of a copied row, blocks of {block}", float(which[4]), 11.0)
        some, _ = d.nearest_other(rows, torch.tensor([12, 3]), block=block)
        yield Answer(f"nearest of one row, blocks of {block}", float(some[0]), float(full[12].max()))
    alone, _ = d.nearest_other(rows[:1])
    yield Answer("nearest other of a row alone", float(alone[0]), float("nan"))


def the_best_match_is_found_in_any_blocks(d: Definitions) -> Iterator[Answer]:
    """Rows that were turned, stretched and mixed are found again; of equal ones the first; a row without length never."""
    rows = torch.cat([turn(6), torch.zeros(1, 6, dtype=torch.float64), turn(6)[:2]])
    places = torch.tensor([5, 6, 0, 3, 7])
    for block in (1, 2, 1024):
        cosine, which = d.best_cosine(rows[places] * torch.arange(1, 6)[:, None], rows, block=block)
        for row, (true, place) in enumerate(((1.0, 5), (float("nan"), -1), (1.0, 0), (1.0, 3), (1.0, 0))):
            yield Answer(f"best cosine of row {row}, blocks of {block}", float(cosine[row]), true)
            yield Answer(f"best match of row {row}, blocks of {block}", float(which[row]), float(place), 0)
        upside_down, _ = d.best_cosine(-rows[:6], rows, block=block)
        yield Answer(f"best cosine upside down, blocks of {block}", float(upside_down.max()), 0.0)


CHECKS: tuple[Check, ...] = (
    lengths_are_of_rows, cosines_know_direction_alone, the_nearest_other_is_found_in_any_blocks,
    the_best_match_is_found_in_any_blocks,
)  # fmt: skip
