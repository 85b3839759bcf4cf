"""What edits saw, added up: several hookpoints, columns that run again or in another order, and what was missed."""

import re

import pytest
import torch
from torch import Tensor

from mohole.act.ledger import Ledger, Sight
from mohole.act.terms import NOTHING
from mohole.errors import StageError
from mohole.model import PassTokens


def ran(first: int, n_columns: int, moved: list[list[int]] | None = None) -> Sight:
    """Of two texts, the second behind one column of padding and with a begin-of-text token; `moved` of each by column."""
    given = PassTokens(torch.zeros(2, n_columns, dtype=torch.int64), first, (0, 1), (3, 2), (0, 1))
    where: Tensor | None = None
    if moved is not None:
        where = torch.tensor([[first + column in row for column in range(n_columns)] for row in moved])
    return Sight(given, 2 * n_columns, where)


def counts(ledger: Ledger, n_tokens: list[int]) -> list[tuple[int, int, int]]:
    return [(each.n_tokens, each.n_fired, each.n_moved) for each in ledger.stamps([NOTHING], n_tokens)]


def test_a_token_that_moves_at_several_hookpoints_or_passes_counts_once() -> None:
    cached, whole = Ledger(), Ledger()
    for name, moved in (("a", [[0, 3], [2]]), ("b", [[0, 1], []]), ("c", None)):
        for first, n_columns in ((0, 3), (3, 1), (4, 1)):
            cached.add(name, ran(first, n_columns, moved))
        for n_columns in (3, 4, 5):  # without a cache
            whole.add(name, ran(0, n_columns, moved))
    for ledger, n_rows in ((cached, 10), (whole, 24)):
        ledger.demand_all(["a", "b", "c"], range(5), n_rows)
        assert counts(ledger, [5, 3]) == [(5, 5, 3), (3, 3, 1)]


def test_a_pass_behind_a_cache_counts_its_own_tokens() -> None:
    ledger = Ledger()
    for name, moved in (("a", [[7], []]), ("b", [[6], [6]])):
        ledger.add(name, ran(6, 2, moved))
    ledger.demand_all(["a", "b"], range(6, 8), 4)
    assert counts(ledger, [2, 2]) == [(2, 2, 2), (2, 2, 1)]


def test_what_fired_is_what_every_hookpoint_saw() -> None:
    whole, part = (ran(0, 3), ran(3, 1)), (ran(0, 3),)
    for several in ((whole, part), (part, whole)):
        ledger = Ledger(dict(zip("ab", map(list, several), strict=True)))
        assert counts(ledger, [4, 2]) == [(4, 3, 0), (2, 1, 0)]


def test_a_column_that_is_seen_twice_does_not_stand_for_one_that_is_missed() -> None:
    ledger = Ledger({"a": [ran(0, 2), ran(0, 1)]})
    with pytest.raises(StageError, match=re.escape("a: the intervention fired at 2 of 3 positions (6 of 6 rows)")):
        ledger.demand_all(["a"], range(3), 6)
    with pytest.raises(StageError, match=re.escape("b: the intervention fired at 0 of 3 positions (0 of 6 rows)")):
        ledger.demand_all(["b"], range(3), 6)
