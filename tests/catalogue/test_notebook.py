"""What a notebook shows of a catalogue: well-formed HTML without script, hostile text as text, the texts of the right corpus."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.run_folder import BRIDGE, DEAD, HOOKPOINTS, make_run

from mohole import Catalogue
from mohole.drawing import notebook
from mohole.evaluate.files import read_evaluation
from mohole.report.read import read_findings

VOID = {"line"}
NASTY = "</p></div><script>alert(1)</script>\u202e\x00 onerror='x' \" &amp;"


class Strict(HTMLParser):
    """Every element closed in turn; nothing that runs, nothing that is fetched."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "img", "link", "object", "a"), tag
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "href"), (name, value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        else:
            assert "url(" not in data
            assert "@import" not in data


def seen(html: str) -> str:
    """The text of it."""
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert not any(letter in html for letter in "\u202e\x00\x1b\u2028")
    return parser.text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("notebook") / "run", n_documents=24)


def test_a_feature_is_shown_with_its_texts(run: Path) -> None:
    catalogue = Catalogue.open(run / HOOKPOINTS[0] / "catalogue")
    feature = catalogue.feature(BRIDGE)
    text = seen(feature._repr_html_())
    for said in (f"Latent {BRIDGE}", f"({feature.count:,})", "Says next", feature.promoted[0][0].strip()):
        assert said in text
    assert feature.texts is not None
    for example in feature.top[:6]:
        pieces = feature.texts(example.start, example.end)
        assert pieces is not None
        assert example.activation == max(example.activations)
    assert "Golden Gate Bridge" in text or "金门大桥" in text
    assert "fires nowhere" in seen(catalogue.feature(DEAD)._repr_html_())


def test_texts_of_another_corpus_are_not_shown_as_its_own(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", n_documents=12)
    (other / "corpus").rename(tmp_path / "corpus")
    feature = Catalogue.open(other / HOOKPOINTS[0] / "catalogue").feature(BRIDGE)
    assert "corpus is not beside the catalogue" in seen(feature._repr_html_())
    (other / "corpus").symlink_to(run / "corpus")
    feature = Catalogue.open(other / HOOKPOINTS[0] / "catalogue").feature(BRIDGE)
    assert "corpus is not beside the catalogue" in seen(feature._repr_html_())


def test_catalogues_evaluations_and_findings_are_shown(run: Path) -> None:
    place = run / HOOKPOINTS[0]
    catalogue, evaluation = Catalogue.open(place / "catalogue"), read_evaluation(place / "evaluation")
    text = seen(catalogue._repr_html_())
    assert f"{catalogue.n_latents:,} latents" in text
    assert f"{int(catalogue.counts.argmax())}" in text
    text = seen(evaluation._repr_html_())
    for measure in evaluation.measures.values():
        assert measure.name in text
    for caution in evaluation.warnings:
        assert caution.sentence in text
    findings = read_findings(run, max_features=8)
    text = seen(findings._repr_html_())
    for hookpoint in HOOKPOINTS:
        assert hookpoint in text
    assert findings.hookpoints[0].features[0].label.text.replace("\u202e", "⟨202E⟩")[:8] in text


def test_hostile_text_is_text_wherever_it_stands() -> None:
    html = notebook.card(
        NASTY,
        notebook.note(NASTY),
        notebook.part(NASTY, notebook.table((NASTY,), [(NASTY,)])),
        notebook.folded(NASTY, notebook.entries([(f"  {NASTY} ", -0.001)])),
        notebook.bars([0, 3, 1], NASTY, NASTY, NASTY),
        notebook.passage([NASTY, f" {NASTY}", "مرحبا"], [0.0, 0.9, 0.2], 1),
    )
    text = seen(html)
    assert text.count("<script>alert(1)</script>⟨202E⟩⟨0000⟩") == 11
    assert "··</p>" in text
    assert "0.00" in text


def test_nothing_to_show_is_shown_calmly() -> None:
    seen(notebook.card("x", notebook.bars([], "", "", ""), notebook.table((), []), notebook.passage([], [], 0)))
