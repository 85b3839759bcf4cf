"""Our definitions give every known answer, and the checks would see every bug that is kept as a mutant."""

import math
from dataclasses import fields, replace

import pytest

from mohole.metrics.definitions import OURS, Definitions
from mohole.metrics.known_answers import CHECKS, Answer, Check, ask, detected, refuses
from mohole.metrics.known_answers.seen import caught, changed
from mohole.metrics.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_our_definitions_give_the_known_answers(check: Check) -> None:
    found = ask(check, OURS)
    assert found.answers
    assert found.wrong == ()


def test_each_historical_bug_is_seen() -> None:
    survivors = [f"{seen.mutant.name}: {seen.mutant.bug}" for seen in caught(MUTANTS, CHECKS) if not seen.check]
    assert survivors == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_check_sees_some_mutant(check: Check) -> None:
    assert any(seen.check for seen in caught(MUTANTS, [check]))


def test_a_mutant_that_no_check_sees_is_said_to_survive() -> None:
    harmless = Mutant("Harmless", "none", "here", replace(OURS, wilson=lambda successes, n: OURS.wilson(successes, n)))
    (seen,) = caught([harmless], CHECKS)
    assert seen.check == ""


def test_every_definition_is_wrong_in_some_mutant() -> None:
    mutated = [changed(mutant.definitions) for mutant in MUTANTS]
    assert all(len(names) == 1 for names in mutated)
    assert set.union(*mutated) == {field.name for field in fields(Definitions)}


def test_names_of_mutants_are_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_check_says_what_must_be_true() -> None:
    claims = [(check.__doc__ or "").strip().splitlines()[0] for check in CHECKS]
    assert all(claim.endswith((".", ":")) and len(claim) > 20 for claim in claims)


def test_a_number_that_is_off_is_wrong_and_undefined_is_no_number() -> None:
    assert Answer("x", 1.0, 1.0).is_right
    assert Answer("x", math.nan, math.nan).is_right
    assert not Answer("x", 1.0 + 2e-9, 1.0).is_right
    assert not Answer("x", 0.0, math.nan).is_right
    assert not Answer("x", math.nan, 0.0).is_right
    assert not Answer("x", math.inf, 0.0, within=1.0).is_right
    assert str(Answer("FVU", 0.5, math.nan)) == "FVU: 0.5, and undefined is true"


def test_a_definition_that_stops_is_wrong_and_says_why() -> None:
    def stops(*_: object) -> float:
        raise ValueError("no such thing")

    found = [ask(check, replace(OURS, auroc=stops)) for check in detected.CHECKS]
    assert [*next(each.wrong for each in found if each.stopped)] == ["stopped: ValueError: no such thing"]


def test_what_is_not_refused_is_wrong() -> None:
    assert not refuses("zero", lambda: 1 / 1).is_right
    assert refuses("zero", lambda: int("zero")).is_right
