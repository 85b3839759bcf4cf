"""`mohole check-metrics` as a user meets it."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mohole.cli.app import app
from mohole.metrics import known_answers, mutants
from mohole.metrics.definitions import OURS
from mohole.metrics.known_answers import seen


def test_all_is_right_and_every_mutant_is_caught() -> None:
    result = CliRunner().invoke(app, ["check-metrics"])
    assert result.exit_code == 0, result.output
    assert " 0 wrong" in result.stdout
    assert f"{len(mutants.MUTANTS)} wrong definitions caught, 0 not" in result.stdout


def test_a_wrong_definition_is_named_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(OURS, wilson=lambda successes, n: (0.0, 0.001))
    monkeypatch.setattr(seen, "OURS", wrong)
    monkeypatch.setattr(known_answers, "CHECKS", known_answers.detected.CHECKS)
    monkeypatch.setattr(mutants, "MUTANTS", ())
    result = CliRunner().invoke(app, ["check-metrics"])
    assert result.exit_code == 1
    assert "wrong: intervals_cover_what_they_say: samples of 100 whose interval holds the share: 0" in result.stderr


def test_a_surviving_mutant_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "MUTANTS", mutants.fired.MUTANTS)
    blind = tuple(check for check in known_answers.fired.CHECKS if check.__name__ != "counts_pass_two_to_the_24")
    monkeypatch.setattr(known_answers, "CHECKS", blind)
    result = CliRunner().invoke(app, ["check-metrics", "--every"])
    assert result.exit_code == 1
    assert "not caught: InFloat32: Counts in float32 stop at 2^24." in result.stderr
