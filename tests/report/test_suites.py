"""Suites in a terminal: every number beside what it is held against, hostile names harmless, nothing wider than the screen."""

import io

from rich.console import Console

from mohole.evaluate.results import DarkMatter, Evaluation, Rated, SuiteResult
from mohole.metrics import DensityHistogram, Masks, Measure
from mohole.metrics.stamp import Stamp
from mohole.report.suites import NOTE, suite_rows, suite_tables
from mohole.report.terminal import plain_table


def measure(name: str, value: float | None, low: float | None = None, high: float | None = None) -> Measure:
    return Measure(
        name=name, value=value, unit="share", low=low, high=high, n=10, n_of="tokens", n_documents=5, masks=Masks(),
        baseline="", definition="made up", undefined="" if value is not None else "nothing to count",
    )  # fmt: skip


def suite(name: str) -> SuiteResult:
    measures = {
        "dictionary": measure(name, 0.5034, 0.4712, 0.5391),
        "random": measure(name, 0.179, 0.15, 0.21),
        "neurons": measure(name, None),
        "pca": measure(name, 20.0, 20.0, 20.0),
    }
    return SuiteResult("tpp", (Rated(name, measures),), ("scr needs two families; it was not measured.",))


def test_a_line_has_the_dictionary_with_its_interval_and_the_others_beside_it() -> None:
    shown = suite_rows(suite("TPP"))
    (row,) = shown["rows"]
    assert shown["suite"] == "tpp (n: tokens)"
    assert row == ["TPP", "0.503 [0.47, 0.54]", "0.179", "-", "20", "", "10"]


def test_names_from_a_corpus_are_harmless_and_lines_fit() -> None:
    nothing = DensityHistogram((-1.0, 0.0), (1,), 0, 1)
    evaluation = Evaluation(
        hookpoint="resid_post.1", kind="sae", reads=("resid_post.1",), writes=("resid_post.1",), n_latents=10, measures={},
        tasks=(), density=nothing, dark_matter=DarkMatter(0, (), ()), warnings=(), checked=Stamp("0", 1, ()),
        suites=(suite("evil\x1b[31m: 1 latent"),),
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=80)
    console.print(suite_tables(evaluation, plain_table("Suites")))
    assert "\x1b" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "0.503 [0.47, 0.54]" in out.getvalue()
    assert "it was not measured" in out.getvalue()
    assert NOTE.split(":")[0] in " ".join(out.getvalue().split())
