"""Pools are disjoint by document and by text; words are put together rightly; hostile pieces stay what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.interpret.phrasing import belongs, quoted
from mohole.interpret.text import View, ends_sentence, read_text


def read(documents: list[list[str]], rows: list[int] | None = None, budget: int = 10**6, seed: int = 0):
    pieces = sorted({piece for document in documents for piece in document})
    tokens = np.array([pieces.index(piece) for document in documents for piece in document], dtype=np.int32)
    starts = np.cumsum([0, *map(len, documents)])
    row_tokens = np.arange(len(tokens)) if rows is None else np.array(rows)
    return read_text(View(tokens, starts, pieces), row_tokens, budget, seed=seed)


def words(document: list[str]) -> list[str]:
    text, _ = read([document])
    return [
        text.raw(start, end)
        for start, end in sorted(set(zip(text.word_start.tolist(), text.word_end.tolist(), strict=True)))
    ]


@given(
    documents=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=40),
    seed=st.integers(0, 9),
)
def test_a_document_and_its_copies_are_in_one_pool(documents: list[list[str]], seed: int) -> None:
    text, _ = read(documents, seed=seed)
    pools: dict[str, set[int]] = {}
    for document, pool in zip(text.document.tolist(), text.pool.tolist(), strict=True):
        pools.setdefault("".join(documents[document]), set()).add(pool)
    assert all(len(pool) == 1 and pool <= {0, 1, 2} for pool in pools.values())


def test_pools_have_their_shares() -> None:
    text, _ = read([[f"{i}"] for i in range(2000)])
    assert np.bincount(text.pool) / 2000 == pytest.approx([0.4, 0.25, 0.35], abs=0.04)


def test_tokens_without_a_row_are_read_but_not_scored() -> None:
    text, place_of_row = read([["a", " b", " c"], [" d", " e"]], rows=[0, 2, 3])
    assert (text.pool >= 0).tolist() == [True, False, True, True, False]
    assert place_of_row.tolist() == [0, 2, 3]


def test_a_budget_keeps_whole_documents_and_drops_the_rows_of_the_others() -> None:
    text, place_of_row = read([["a"] * 5, ["b"] * 5, ["c"] * 5], budget=11)
    assert len(text) == 10
    assert sorted(place_of_row[place_of_row >= 0].tolist()) == list(range(10))
    assert (place_of_row < 0).sum() == 5


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (["Bri", "dge", " over"], ["Bridge", " over"]),
        ([" don", "'t", "!", "?"], [" don't", "!", "?"]),
        (["大", "桥", " a", "桥"], ["大", "桥", " a", "桥"]),
        (["x", "_", "1", "(", ")"], ["x_1", "(", ")"]),
        (["a", "\n", "b", "", "c"], ["a", "\n", "b", "", "c"]),
        (["\ufffd", "\ufffd", "é", "t"], ["\ufffd", "\ufffd", "ét"]),
        (["a", "<0xE2>", "<0x82><0xAC>", "b"], ["a", "<0xE2>", "<0x82><0xAC>", "b"]),
    ],
)
def test_words_of_pieces(document: list[str], expected: list[str]) -> None:
    assert words(document) == expected


def test_words_and_sentences_do_not_leave_their_document() -> None:
    text, _ = read([["ab"], ["cd", "."], ["e"]])
    assert text.word_start.tolist() == [0, 1, 2, 3]
    assert text.sentence.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("piece", [".", " !", "。", "\n", "?\n", " x."])
def test_what_ends_a_sentence(piece: str) -> None:
    assert ends_sentence(piece)
    assert not ends_sentence(piece.strip(".!。?\n") + ",")


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (" dog", "“dog”"),
        ("<script>", "“<script>”"),
        ('say "x"', '“say "x"”'),
        ("\x00\x1b[31m", "“\\x00\\x1b[31m”"),
        ("\u202eabc", "“\\u202eabc”"),
        ("a\u2028b", "“a\\u2028b”"),
        ("😀", "“😀”"),
        ("\ufffd", "“⬚”"),
        (" <0xE2><0x80>", "“<0xE2><0x80>”"),
        ("  ", "space"),
        ("\n", "line break"),
        ("\u3000", "“\\u3000”"),
        ("x" * 99, "“" + "x" * 18 + "…" + "x" * 9 + "”"),
    ],
)
def test_quotation_is_one_visible_line(piece: str, shown: str) -> None:
    assert quoted(piece) == shown
    assert all(character.isprintable() for character in quoted(piece))


def test_which_neighbours_belong_to_a_name() -> None:
    assert belongs(" San", " Francisco")
    assert not belongs(" the", " Francisco")
    assert not belongs("桥", " 大")
    assert not belongs("", "x")
