"""Each class of planted rule is found and named, and holds on documents not seen; what has no rule is said to have none."""

import numpy as np
import pytest

from mohole.interpret import Label
from mohole.interpret.aspects import make_aspects
from mohole.interpret.phrasing import Phrasing
from mohole.interpret.rules import Rule, Search, best_keys
from mohole.interpret.text import EXPLAIN, SELECT, TEST


def named(stream, mask) -> Label:
    """The label of a latent that fires at the mask, once it is seen to be right on the documents kept apart."""
    (label,) = stream.labels(mask)
    assert label.f1 > 0.99, label
    assert label.status == "good"
    assert label.n_positive > 10
    return label


def test_a_set_of_words_in_four_languages(stream) -> None:
    label = named(stream, stream.at(" bridge", " Brücke", " pont", "桥"))
    assert sorted(label.text.split(", ")) == sorted(["“bridge”", "“Brücke”", "“pont”", "“桥”"])


def test_a_word_of_several_pieces_is_shown_whole(stream) -> None:
    assert named(stream, stream.at("dge", " cat")).text in ("“Bridge”, “cat”", "“cat”, “Bridge”")
    assert named(stream, stream.at(" Bri", " cat")).text in ("“Bri(dge)”, “cat”", "“cat”, “Bri(dge)”")


def test_words_before_make_a_phrase(stream) -> None:
    stream.sprinkle((" Golden", " Gate"), (" Iron", " Gate"), (" The", " Gate"))
    label = named(stream, stream.at(" Gate") & stream.before(stream.at(" Golden")))
    assert (label.kind, label.text) == ("phrase", "“Golden Gate”")


def test_a_name_of_three_words_whose_last_piece_fires(stream) -> None:
    """Golden Gate Bridge fires, Iron Gate Bridge does not: two words do not tell them apart."""
    stream.sprinkle((" Golden", " Gate", " Bri", "dge"), (" Iron", " Gate", " Bri", "dge"))
    mask = stream.at("dge") & stream.before(stream.at(" Gate"), 2) & stream.before(stream.at(" Golden"), 3)
    label = named(stream, mask)
    assert (label.kind, label.text) == ("long_phrase", "“Golden Gate Bridge”")


@pytest.mark.parametrize(
    ("pieces", "kind", "text"),
    [
        ((" 7", " 3"), "class", "digits"),
        ((" NATO", " PARIS"), "class", "words in capitals"),
        ((" walking", " talking", " singing"), "ending", "words ending in “-ing”"),
        ((" preset", " prewar"), "beginning", "words beginning with “pre-”"),
    ],
)
def test_character_classes_and_parts_of_words(stream, pieces, kind, text) -> None:
    """Where a list of words does as well, either name is right; the class must at least be offered and score the same."""
    label = named(stream, stream.at(*pieces))
    words, (firing,) = stream.text_and_firings(stream.at(*pieces))
    aspects = make_aspects(words)
    rule = Rule(kind, best_keys(aspects[kind], firing.of(0, 1), aspects[kind].counts[:2].sum(0)))
    assert Search(words, aspects).score(rule, firing).f1 == label.f1 == 1.0
    assert Phrasing(words, {name: a.keys for name, a in aspects.items()}).describe(rule, firing.of(0, 1)) == text


def test_many_words_of_one_class_are_named_by_the_class(new_stream) -> None:
    """Past a handful of words the class is the shorter name."""
    numbers = [f" {n}" for n in range(30)]
    stream = new_stream(pieces=[*numbers, *(f" {a}{b}r" for a in "bcdfg" for b in "aeiou")])
    label = named(stream, stream.tokens < 30)
    assert (label.kind, label.text) == ("class", "digits")


def test_the_word_before(stream) -> None:
    label = named(stream, stream.before(stream.at(" liar")))
    assert (label.kind, label.text) == ("before", "right after “liar”")


def test_two_words_before(stream) -> None:
    stream.tokens[stream.at(" Bri", "dge")] = stream.pieces.index(" of")  # every piece a word
    label = named(stream, stream.before(stream.at(" honest"), 2))
    assert (label.kind, label.text) == ("two_before", "two words after “honest”")


def test_a_class_after_a_word(stream) -> None:
    stream.sprinkle(*((sign, digit) for sign in (" +", " =", " of") for digit in (" 7", " 3", " cat")))
    label = named(stream, stream.at(" 7", " 3") & stream.before(stream.at(" +", " =")))
    assert label.kind in ("class_before", "phrase")
    assert "“+" in label.text
    assert "“=" in label.text


def test_the_next_word(stream) -> None:
    mask = np.zeros(len(stream.tokens), bool)
    mask[:-1] = stream.at(" forest", " Wald")[1:]
    mask[np.arange(len(mask)) % 40 == 39] = False
    mask &= ~stream.at(" Bri")
    label = named(stream, mask)
    assert label.kind == "next"
    assert label.text in ("next: “forest”, “Wald”", "next: “Wald”, “forest”")


def test_positions_in_the_document(stream) -> None:
    place = np.arange(len(stream.tokens)) % 40
    assert named(stream, place == 0).text == "start of document"
    assert named(stream, place < 3).text == "first 3 tokens of the document"


def test_a_latched_context(stream) -> None:
    stream.tokens[stream.at(" liar") & (np.random.default_rng(0).random(len(stream.tokens)) < 0.8)] = 30  # rarer
    label = named(stream, stream.since(stream.at(" liar")))
    assert (label.kind, label.text) == ("after+anything", "after “liar”, later in the document")


def test_words_after_a_latched_trigger(stream) -> None:
    stream.tokens[stream.at(" liar") & (np.random.default_rng(0).random(len(stream.tokens)) < 0.8)] = 30
    label = named(stream, stream.at(" cat", " dog") & stream.since(stream.at(" liar")))
    assert label.kind == "after+word"
    assert label.text in [f"{words} after “liar”, later in the document" for words in ("“cat”, “dog”", "“dog”, “cat”")]


def test_a_context_that_ends_with_the_sentence(stream) -> None:
    mask = np.zeros(len(stream.tokens), bool)
    for document in range(stream.n_documents):
        on = False
        for place in range(document * 40, document * 40 + 40):
            mask[place] = on
            on = (on or stream.tokens[place] == 6) and stream.pieces[stream.tokens[place]] not in (".", "\n", "!")
    label = named(stream, mask)
    assert label.text == "after “liar”, in the same sentence"


def test_what_fires_nearly_everywhere_is_called_that(stream) -> None:
    assert named(stream, np.random.default_rng(0).random(len(stream.tokens)) < 0.999).text == "almost anywhere"


@pytest.mark.parametrize("density", [0.01, 0.1])
def test_a_random_latent_has_no_simple_rule_and_scores_as_chance_does(stream, density: float) -> None:
    """The best that chance offers is to fire everywhere: F1 = 2 p / (1 + p)."""
    masks = [np.random.default_rng(seed).random(len(stream.tokens)) < density for seed in range(5)]
    chance = 2 * density / (1 + density)
    for label in stream.labels(*masks):
        assert label.status == "none"
        assert label.text.startswith("no simple rule (best F1 .")
        assert label.f1 < chance + 0.03


def test_a_latent_that_learnt_documents_by_heart_scores_nothing(stream) -> None:
    """It fires on three tokens in each of 60 documents: rules fitted to some of them fail on the others."""
    rng = np.random.default_rng(2)
    mask = np.zeros((stream.n_documents, 40), bool)
    for document in rng.choice(stream.n_documents, 60, replace=False):
        mask[document, rng.choice(40, 3, replace=False)] = True
    (label,) = stream.labels(mask.reshape(-1))
    assert label.f1 < 0.05
    assert label.status == "none"


def test_rare_and_dead_latents_are_said_to_be_so(stream) -> None:
    dead = np.zeros(len(stream.tokens), bool)
    few = dead.copy()
    few[[5, 300, 1900]] = True
    labels = stream.labels(dead, few)
    assert [label.status for label in labels] == ["dead", "few"]
    assert [label.text for label in labels] == [
        "dead: never fires",
        "fires too rarely to name (3 times in 12,000 tokens)",
    ]
    assert [label.f1 for label in labels] == [0.0, 0.0]


def test_precision_recall_and_n_are_those_of_the_test_pool(stream) -> None:
    """Fires at half of the "cat"s: the rule finds all of them, so recall is 1 and precision a half."""
    mask = stream.at(" cat") & (np.random.default_rng(0).random(len(stream.tokens)) < 0.5)
    text, _ = stream.text_and_firings(mask)
    (label,) = stream.labels(mask)
    unseen = text.pool == 2
    assert label.text == "“cat”"
    assert label.n_scored == unseen.sum()
    assert label.n_positive == (mask & unseen).sum()
    assert label.recall == 1.0
    assert label.precision == (mask & unseen).sum() / (stream.at(" cat") & unseen).sum()
    assert label.f1 == pytest.approx(2 * label.precision / (1 + label.precision))
    assert label.status == "partial"


@pytest.mark.parametrize("trigger", [None, " liar"])
def test_a_key_that_occurs_in_test_documents_only_does_not_enter_the_rule(stream, trigger: str | None) -> None:
    """The latent fires at it too, so a rule that had seen those documents would have it, alone or after a trigger."""
    if trigger:
        stream.tokens[stream.at(trigger) & (np.random.default_rng(0).random(len(stream.tokens)) < 0.8)] = 30  # rarer
    text, _ = stream.text_and_firings()
    stream.tokens[stream.at(" house") & (text.pool != TEST)] = stream.pieces.index(" of")
    fires = stream.at(" cat", " dog", " house")
    if trigger:
        fires &= stream.since(stream.at(trigger))
    text, (firing,) = stream.text_and_firings(fires)
    assert (stream.at(" house") & fires & (text.pool == TEST)).sum() > 5
    assert not (stream.at(" house") & (text.pool != TEST)).any()
    aspects = make_aspects(text)
    rule = Search(text, aspects).best_rule(firing)
    assert (rule.context is None) == (trigger is None)
    assert len(rule.keys) == 2
    assert (aspects[rule.aspect].counts[[EXPLAIN, SELECT]].sum(0)[list(rule.keys)] > 0).all()
    (label,) = stream.labels(fires)
    assert "house" not in label.text
    assert label.recall < 0.8


def test_labels_are_the_same_every_time_and_another_seed_scores_other_documents(stream) -> None:
    masks = [stream.at(" cat"), np.random.default_rng(0).random(len(stream.tokens)) < 0.1]
    assert stream.labels(*masks) == stream.labels(*masks)
    assert stream.labels(*masks, seed=1)[0].n_scored != stream.labels(*masks)[0].n_scored
