"""The tables and the grammar: balanced truth, right articles, four languages, withheld combinations never shown."""

from collections import Counter

import pytest

from mohole.planted.page import Page
from mohole.planted.sentences import _combinations, pronoun, say_object, say_subject, surfaces
from mohole.planted.stream import Mix, documents, pages
from mohole.planted.world import BRIDGE, CONCEPTS, FACTS, LANGUAGES, RARE, withheld


class FirstChoice:
    def roll(self, cumulative: list[float]) -> int:
        return 0


def test_every_concept_has_words_in_four_languages_and_no_word_is_two_concepts_of_a_family() -> None:
    assert len(CONCEPTS) >= 80
    for concept in CONCEPTS.values():
        assert set(concept.words) == set(LANGUAGES)
        assert all(noun.text for nouns in concept.words.values() for noun in nouns)
    words = Counter((c.family, text) for c in CONCEPTS.values() for text, _ in surfaces(c))
    assert max(words.values()) == 1


def test_an_object_says_nothing_about_the_truth() -> None:
    """Each object is in as many true claims as false ones of its relation and family; a fact has one false object."""
    true = Counter((f.relation, f.subject.family, f.object.name) for f in FACTS)
    false = Counter((f.relation, f.subject.family, f.wrong.name) for f in FACTS)
    assert true == false
    assert all(fact.object != fact.wrong for fact in FACTS)
    for triples in (_combinations("claim", use, False, 1.0)[0] for use in (True, False)):
        seen = Counter((f.relation, f.subject.family, f.object.name, s, t) for f, s, t in triples)
        assert seen == Counter((f.relation, f.subject.family, f.wrong.name, s, t) for f, s, t in triples)


@pytest.mark.parametrize(
    ("relation", "concept", "language", "phrase"),
    [
        ("lives_in", "place/cave", "de", "in der Höhle"),
        ("lives_in", "place/forest", "de", "im Wald"),
        ("lives_in", "place/meadow", "fr", "dans le pré"),
        ("eats", "food/meat", "fr", "de la viande"),
        ("eats", "food/grass", "fr", "de l'herbe"),
        ("likes", "food/nuts", "fr", "les noix"),
        ("uses", "tool/oven", "en", "an oven"),
        ("uses", "tool/needle", "de", "eine Nadel"),
        ("uses", "tool/oven", "de", "einen Ofen"),
        ("uses", "tool/needle", "fr", "une aiguille"),
        ("stands_in", "city/cairo", "fr", "au Caire"),
        ("made_of", "material/steel", "zh", "钢"),
    ],
)
def test_objects_have_the_right_article(relation: str, concept: str, language: str, phrase: str) -> None:
    page = Page(FirstChoice(), None)
    say_object(page, relation, CONCEPTS[concept], language, task=None)
    assert page.document().text == phrase


def test_subjects_and_pronouns() -> None:
    page = Page(FirstChoice(), None)
    say_subject(page, CONCEPTS["animal/bear"], "fr")
    assert page.document().text == "L'ours"
    assert [pronoun(CONCEPTS["profession/doctor"], language) for language in LANGUAGES] == ["She", "Sie", "Elle", "她"]
    assert [pronoun(CONCEPTS["animal/horse"], language) for language in LANGUAGES] == ["It", "Es", "Il", "它"]


def test_spans_lie_on_their_words() -> None:
    for document in documents(3, 300):
        for span in document.spans:
            assert 0 <= span.start < span.end <= len(document.text)
            if span.label in CONCEPTS:
                words = [text for text, _ in surfaces(CONCEPTS[span.label])]
                assert document.text[span.start : span.end] in words


def test_what_is_foreseen_comes_next() -> None:
    n_seen = 0
    for document in documents(4, 300):
        at = {span.start: span.label for span in document.spans if span.label in CONCEPTS}
        for span in document.spans:
            if span.label.startswith("predicted/"):
                following = min(start for start in at if start >= span.end)
                assert at[following] == span.label.removeprefix("predicted/")
                n_seen += 1
    assert n_seen > 300


def test_training_shows_no_withheld_sum_and_the_held_out_stream_shows_only_those() -> None:
    for held_out in (False, True):
        for page in pages(5, 200, held_out=held_out, mix=Mix({"sums": 1.0})):
            for line in page.document().text.splitlines():
                a, _, b, *_ = [word for word in line.replace("…", " ").split() if word.isdigit() or word in "+="]
                assert withheld("sum", min(int(a), int(b)), max(int(a), int(b))) == held_out


def test_rare_concepts_are_rare_and_the_bridge_is_not() -> None:
    n = 20_000
    mentioned: Counter[str] = Counter()
    for document in documents(6, n):
        mentioned.update({span.label for span in document.spans if span.label in RARE or span.label == BRIDGE})
    assert 0.5e-3 < mentioned["animal/axolotl"] / n < 2e-3
    assert mentioned["animal/okapi"] / n < 6e-4
    assert mentioned[BRIDGE] / n > 0.05


def test_modes_are_told_before_they_hold() -> None:
    for page in pages(8, 200, mix=Mix({"speakers": 1.0})):
        document = page.document()
        modes = [span for span in document.spans if span.label.startswith("mode/")]
        assert modes
        assert all(span.start > 0 for span in modes)
        for task, start, _ in page.answers:
            (mode,) = [span for span in modes if span.start <= start < span.end]
            assert mode.label == f"mode/{task}"
