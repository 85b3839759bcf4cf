"""Every choice can be seen in the text: so a document's surprise is the surprise of its text, and the floor is exact."""

from collections.abc import Callable, Iterator, Sequence
from math import exp, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.planted import kinds
from mohole.planted.page import KeyedDice, Page
from mohole.planted.sentences import pronoun, say_aside, say_own_fact, say_predicate, say_remark
from mohole.planted.stream import Mix, pages, write
from mohole.planted.world import CONCEPTS, FACTS, LANGUAGES


class Script:
    """Dice that follow a list of outcomes, then choose the first possible one; they remember all the possibilities."""

    def __init__(self, outcomes: Sequence[int]) -> None:
        self._outcomes = outcomes
        self.rolled: list[int] = []
        self.possible: list[list[int]] = []

    def roll(self, cumulative: Sequence[float]) -> int:
        steps = [b - a for a, b in zip([0.0, *cumulative], cumulative, strict=False)]
        possible = [i for i, step in enumerate(steps) if step > 0]
        place = len(self.rolled)
        self.rolled.append(self._outcomes[place] if place < len(self._outcomes) else possible[0])
        self.possible.append(possible)
        return self.rolled[-1]


def every_page(writer: Callable[[Page], None], *, deepest: int = 99, widest: int = 99) -> Iterator[Page]:
    """All pages a writer can write; beyond `deepest` choices, or `widest` outcomes of one, only some of them."""
    waiting: list[list[int]] = [[]]
    while waiting:
        outcomes = waiting.pop()
        dice = Script(outcomes)
        page = Page(dice, None)
        writer(page)
        yield page
        for place in range(len(outcomes), min(len(dice.rolled), deepest)):
            others = [i for i in dice.possible[place] if i != dice.rolled[place]]
            waiting.extend([*dice.rolled[:place], other] for other in others[-widest:])


def test_all_texts_of_a_small_grammar_are_different_and_their_probabilities_sum_to_one() -> None:
    def own_fact_or_remark(page: Page) -> None:
        if page.chance("remark"):
            say_remark(page, page.pick(LANGUAGES))
        else:
            page.fixation = CONCEPTS["animal/owl"]
            say_own_fact(page, CONCEPTS["landmark/golden_gate_bridge"], page.pick(LANGUAGES))

    written = list(every_page(own_fact_or_remark))
    found = {page.document().text: page.nats for page in written}
    assert len(found) == len(written) > 200
    assert isclose(sum(exp(-nats) for nats in found.values()), 1.0, abs_tol=1e-9)


@pytest.mark.parametrize("kind", Mix().kinds)
def test_no_two_ways_of_choosing_give_one_text(kind: str) -> None:
    writers: dict[str, Callable[[Page], None]] = {
        "facts": kinds.write_facts,
        "verdicts": kinds.write_verdicts,
        "speakers": lambda page: kinds.write_speakers(page, Mix().modes),
        "code": kinds.write_code,
        "sums": kinds.write_sums,
        "chains": kinds.write_chains,
        "role_play": kinds.write_role_play,
    }

    def with_fixation(page: Page) -> None:
        if page.roll((0.8, 1.0)):
            page.fixation = CONCEPTS["animal/fox"]
            say_aside(page, page.fixation)
        writers[kind](page)

    texts = [page.document().text for page in every_page(with_fixation, deepest=11, widest=1)]
    assert len(texts) > 500
    assert len(set(texts)) == len(texts)


def test_a_whole_document_of_two_parts_has_one_derivation() -> None:
    texts = [p.document().text for p in every_page(_whole, deepest=7, widest=2)]
    assert len(texts) > 500
    assert len(set(texts)) == len(texts)


def _whole(page: Page) -> None:
    copy = write(page.dice, Mix(), None)
    page.say(copy.document().text or "-")
    page.nats = copy.nats


@given(st.integers(0, 2**40), st.integers(0, 2**31))
def test_equal_texts_cost_the_same_and_a_document_depends_on_its_key_only(seed: int, document: int) -> None:
    first, again = (write(KeyedDice(seed, document), Mix(), False) for _ in range(2))
    assert first.document() == again.document()
    assert first.nats == again.nats > 0


def test_short_documents_that_meet_by_chance_have_the_same_surprise() -> None:
    surprise: dict[str, float] = {}
    n_met = 0
    for page in pages(7, 8000, held_out=None, mix=Mix({"code": 1.0, "role_play": 1.0})):
        text = page.document().text
        n_met += text in surprise
        assert isclose(surprise.setdefault(text, page.nats), page.nats, rel_tol=1e-9), text
    assert n_met > 100


def test_the_surprise_of_a_known_document() -> None:
    """A claim about one of two equally likely truths, in a phrasing of two, costs 2 ln 2."""
    page = Page(Script([0, 1]), None)
    fact = next(f for f in FACTS if f.relation == "uses")
    say_predicate(page, fact, "en", task=None)
    assert isclose(page.nats, log(2))
    assert pronoun(CONCEPTS["animal/cat"], "de") == "Sie"
