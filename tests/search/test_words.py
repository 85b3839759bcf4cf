"""Words, and what they may have been meant to be, against slow and obvious versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.search.spelling import BEGINS, EXACT, INSIDE, MISSPELT, Spelling, edits
from mohole.search.words import WordTable, fold, words

short = st.text(alphabet="abc", min_size=0, max_size=6)
few_words = st.lists(st.sampled_from(["a", "b", "c", "大", "桥"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("landmark/golden_gate_bridge", ["landmark", "/", "golden", "gate", "bridge"]),
        ("“!”, “moonlight”", ["!", "moonlight"]),
        ("金门大桥 and 12", ["金", "门", "大", "桥", "and", "12"]),
        ("किताब שָׁלוֹם", ["किताब", fold("שָׁלוֹם")]),
        ("C++ 😀", ["c", "+", "+", "😀"]),
        ("...", [".", ".", "."]),
        (" \n\t", []),
        ("\x00", ["\x00"]),
    ],
)
def test_what_a_word_is(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(max_size=40))
def test_words_are_the_same_whatever_their_case_and_form(text: str) -> None:
    assert all(words(text))
    assert words(fold(text)) == words(text)
    assert (not words(text)) == (not text.strip())


@given(st.lists(few_words, max_size=8), few_words)
def test_a_table_says_which_texts_have_a_phrase(texts: list[str], phrase: str) -> None:
    table, asked = WordTable.of(texts), words(phrase)
    if not asked or any(word not in table.vocabulary for word in asked):
        return
    own = [words(text) for text in texts]
    n = len(asked)
    brute = [i for i, text in enumerate(own) if any(text[j : j + n] == asked for j in range(len(text)))]
    assert table.with_phrase([table.vocabulary.number(word) for word in asked]).tolist() == brute


def test_a_phrase_ends_where_its_text_ends() -> None:
    table = WordTable.of(["golden", "gate", "x golden", "gate golden gate"])
    assert table.with_phrase([table.vocabulary.number("golden"), table.vocabulary.number("gate")]).tolist() == [3]


def test_a_part_of_a_word_stands_in_it_whole() -> None:
    """cabcxbcab has every three letters of bcabc, and not the word."""
    table = WordTable.of(["cabcxbcab", "zbcabcz"])
    found = Spelling(table).candidates("bcabc")
    assert [table.vocabulary[number] for number, (_, how) in found.items() if how == INSIDE] == ["zbcabcz"]


@given(short, short)
def test_edits_are_a_distance(a: str, b: str) -> None:
    assert edits(a, b) == edits(b, a)
    assert (edits(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edits(a, b) <= max(len(a), len(b))


VOCABULARY = ["bridge", "gate", "golden", "harbour", "moonlight", "suspension", "tractor", "zoo", "über", "ночь"]


@given(
    st.sampled_from([w for w in VOCABULARY if len(w) >= 4]), st.integers(0, 9), st.sampled_from("qx"), st.integers(0, 3)
)
def test_one_wrong_letter_is_forgiven_wherever_it_is(word: str, place: int, letter: str, how: int) -> None:
    word = fold(word)
    i = place % (len(word) - 1)
    wrong = [word[:i] + letter + word[i:], word[:i] + letter + word[i + 1 :], word[:i] + word[i + 1 :],
             word[:i] + word[i + 1] + word[i] + word[i + 2 :]][how]  # fmt: skip
    table = WordTable.of(VOCABULARY)
    if len(wrong) < 4:
        return
    found = Spelling(table).candidates(wrong)
    assert table.vocabulary.number(word) in found, (wrong, word)


def test_a_word_is_itself_before_it_is_a_beginning_a_part_or_a_slip() -> None:
    table = WordTable.of(["bridge", "bridges", "footbridge", "bride"])
    spelling = Spelling(table)

    def kinds(word: str) -> dict[str, str]:
        return {table.vocabulary[number]: how for number, (_, how) in spelling.candidates(word).items()}

    assert kinds("bridge") == {"bridge": EXACT, "bridges": BEGINS}
    assert kinds("bridg") == {"bridge": BEGINS, "bridges": BEGINS}
    assert kinds("ridge")["footbridge"] == INSIDE
    assert kinds("brigde") == {"bridge": MISSPELT, "bride": MISSPELT}
    assert kinds("b") == {}, "a single letter begins too much to mean any of it"
    likeness = {table.vocabulary[n]: value for n, (value, _) in spelling.candidates("bridge").items()}
    assert likeness["bridge"] == 1 > likeness["bridges"]
