"""Copies of one text that fill a side of the split are named; a text or two given twice are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mohole import config
from mohole.corpus import Corpus, Document
from mohole.dictionary import SparseAutoencoder
from mohole.evaluate import evaluate, read_evaluation
from mohole.evaluate.guards.copies import copies
from mohole.evaluate.rows.choice import Rows
from mohole.model import LanguageModel
from mohole.store import Store

WORDS = ("the", "a", "of", "trigger")


def said(corpus: Corpus) -> list[str]:
    tokens = np.flatnonzero(corpus.held_out[corpus.document_of(np.arange(corpus.n_tokens))])
    rows = Rows(tokens, corpus.document_of(tokens))
    found = list(copies(corpus, rows, seed=0))
    assert {caution.name for caution in found} <= {"copies"}
    return [caution.sentence for caution in found]


def distinct(n: int) -> list[Document]:
    """No two alike: numbers written in four words."""
    return [Document(" ".join(WORDS[i // 4**place % 4] for place in range(5))) for i in range(n)]


@pytest.mark.parametrize(("side", "consequence"), [("held-out", "too narrow"), ("training", "few texts")])
def test_a_side_of_copies_is_named_with_how_many(
    make_corpus: Callable[..., Corpus], side: str, consequence: str
) -> None:
    for n in range(10, 25):  # until the copied text falls on this side, which its number decides
        corpus = make_corpus([*distinct(n), *[distinct(n + 1)[n]] * 30])
        if corpus.held_out[-1] == (side == "held-out"):
            break
    n_side = int((corpus.held_out == corpus.held_out[-1]).sum())
    (sentence,) = said(corpus)
    assert sentence.startswith(f"29 of {n_side} {side} documents are copies of another (one text stands there 30 times")
    assert consequence in sentence


def test_distinct_texts_and_a_text_given_twice_are_silent(make_corpus: Callable[..., Corpus]) -> None:
    assert said(make_corpus(distinct(60))) == []
    assert said(make_corpus([*distinct(30), *distinct(30)])) == [], "half of the documents is not most of them"


def test_the_report_has_it(
    make_corpus: Callable[..., Corpus],
    harvested: Callable[[Corpus], Store],
    model: LanguageModel,
    identity: SparseAutoencoder,
    folder: Path,
) -> None:
    corpus = make_corpus([text for text in distinct(40) for _ in range(4)])
    evaluate(folder, model, identity, corpus, harvested(corpus), config.Evaluate(recovery=False), seed=0)
    assert [each.name for each in read_evaluation(folder).warnings].count("copies") == 2
