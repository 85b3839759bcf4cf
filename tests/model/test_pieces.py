"""Tokens as a person reads them: exact in any script, and a part of a character as its bytes, however a vocabulary has it."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.act.tiny import tiny_tokenizer
from tests.model.test_load import byte_tokenizer
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers

from mohole.byte_pieces import bytes_of, is_broken, joined, shown_bytes
from mohole.model import Tokenizer, load_model
from mohole.model.load import new_tokenizer

TEXTS = (
    "naïve café, cafe\u0301",
    "金门大桥，旧金山",
    "افتتح جسر البوابة الذهبية \u200f1937\u200e",
    "שָׁלוֹם לעולם",
    "नमस्ते क्‍ष",
    "👩‍👩‍👧 🏳️‍🌈 €",
    "a\u202eb\u2028c\x00\x1b[31m\ufeff",
    "� is a character too",
    "<0xE2> said the page; <0x82",
)


@cache
def llama_like() -> Tokenizer:
    """SentencePiece's ways: a space is ▁, and what no entry covers falls back to its bytes."""
    alphabet = ["▁", *"abcdefghijklmnopqrstuvwxyz<>0xE2", "桥", "�"]
    entries = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(alphabet)]
    vocabulary = {entry: place for place, entry in enumerate(entries)}
    backend = RawTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return new_tokenizer(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tokenizers() -> dict[str, Tokenizer]:
    return {"bytes": byte_tokenizer(), "fallback": llama_like(), "planted": load_model("planted").tokenizer}


@pytest.mark.parametrize("kind", ["bytes", "fallback", "planted"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_in_a_row_are_the_text(kind: str, text: str) -> None:
    tokenizer = tokenizers()[kind]
    tokens = tokenizer.encode(text)
    assert joined(map(tokenizer.piece, tokens)) == text


def test_what_tokens_add_keeps_its_space_and_a_begin_of_text_is_no_text() -> None:
    tokenizer = tiny_tokenizer()  # drops the space at a text's beginning
    bos, added = tokenizer.bos_id or 0, tokenizer.encode("w1 w2")
    assert tokenizer.decode(added) == "w1 w2"
    assert tokenizer.decode_behind([bos, *tokenizer.encode("w9")], added) == " w1 w2"
    assert tokenizer.decode_behind([bos], added) == tokenizer.decode_behind([], added) == "w1 w2"


def test_a_character_that_is_cut_is_its_bytes() -> None:
    euro = ["<0xE2>", "<0x82>", "<0xAC>"]
    for tokenizer in (byte_tokenizer(), llama_like()):
        assert [tokenizer.piece(token) for token in tokenizer.encode("€")] == euro
    known = llama_like()
    assert [known.piece(token) for token in known.encode("a 桥\n")] == ["a", " ", "桥", "\n"]
    assert known.piece(known.encode("�")[0]) == "�", "an entry of the vocabulary, and no broken byte"
    assert [is_broken(piece) for piece in (*euro, " <0xE2>", "a", "<0x")] == [True, True, True, True, False, False]


def test_every_entry_of_the_built_in_vocabulary_is_text_or_bytes() -> None:
    """Whole entries of bytes, spaces among them: nothing reads as a replacement character, no two entries alike."""
    tokenizer = load_model("planted").tokenizer
    pieces = [tokenizer.piece(token) for token in range(len(tokenizer))]
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum(is_broken(piece) for piece in pieces) > 100
    assert len(set(pieces)) == len(pieces)


@given(st.binary(max_size=12))
@example("a€".encode()[:-1] + "é".encode())
def test_bytes_are_shown_whole_and_had_back(data: bytes) -> None:
    assert bytes_of(shown_bytes(data)) == data or b"<0x" in data


@given(st.text(max_size=8), st.data())
def test_however_a_text_is_cut_its_pieces_are_the_text(text: str, data: st.DataObject) -> None:
    encoded = text.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=6)))
    bounds = [0, *cuts, len(encoded)]
    pieces = [shown_bytes(encoded[a:b]) for a, b in pairwise(bounds)]
    assert joined(pieces) == encoded.decode() or "<0x" in text
