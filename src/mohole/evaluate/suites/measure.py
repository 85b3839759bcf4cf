"""The suites of supervised and causal measurements: which are asked for, what they need, what is said where it is missing."""

from collections.abc import Iterator

from mohole.config import Suite
from mohole.errors import StageError
from mohole.evaluate.results import Rated, SuiteResult
from mohole.evaluate.suites.absorption import measure_absorption
from mohole.evaluate.suites.material import Material
from mohole.evaluate.suites.ravel import measure_ravel
from mohole.evaluate.suites.scr import measure_scr
from mohole.evaluate.suites.sparse_probing import measure_probing
from mohole.evaluate.suites.tpp import measure_tpp
from mohole.evaluate.suites.unlearning import measure_unlearning
from mohole.progress import track

_NEEDS: dict[Suite, str] = {
    "sparse_probing": "a family of labels that exclude each other, with enough tokens of two of them",
    "absorption": "a family of labels that exclude each other, with enough tokens of two of them",
    "scr": "two families on the same tokens, with enough tokens of two labels of each in all four combinations",
    "tpp": "a family of labels that exclude each other, with enough tokens of two of them",
    "ravel": "two families of labels on the same tokens",
    "unlearning": "two tasks, of which the model can do one well",
}


def measure_suites(material: Material) -> tuple[SuiteResult, ...]:
    """Every suite that `evaluate.suites` names, in that order.

    Raises:
        StageError: a suite of labels, and the corpus has none.
    """
    asked = tuple(dict.fromkeys(material.settings.suites))
    labelled = [suite for suite in asked if suite != "unlearning"]
    if labelled and material.truth is None:
        raise StageError(
            f"evaluate.suites: {', '.join(labelled)} need labels, and the corpus has none; docs/supervised-metrics.md says how "
            "to give them"
        )
    found = []
    with track(f"evaluate {material.dictionary.hookpoint}: suites", len(asked), "suites") as tracker:
        for suite in asked:
            ratings = tuple(_ratings(suite, material))
            left_out = () if ratings else (f"{suite} needs {_NEEDS[suite]}; it was not measured.",)
            found.append(SuiteResult(suite, ratings, left_out))
            tracker.advance()
    return tuple(found)


def _ratings(suite: Suite, material: Material) -> Iterator[Rated]:
    match suite:
        case "sparse_probing":
            return measure_probing(material)
        case "absorption":
            return measure_absorption(material)
        case "scr":
            return measure_scr(material)
        case "tpp":
            return measure_tpp(material)
        case "ravel":
            return measure_ravel(material)
        case "unlearning":
            return measure_unlearning(material)
