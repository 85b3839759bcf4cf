"""Text as it is written: whatever the tokens, it is the text; no half characters, and nothing of a stop string."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from tests.act.tiny import tiny_tokenizer
from tests.model.test_pieces import llama_like
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from mohole.engine import Writer, Written
from mohole.model import Tokenizer
from mohole.model.load import new_tokenizer


def byte_tokenizer() -> Tokenizer:
    """A token for every byte, and a few for more: characters are cut in two to four."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "st", "op", "ĠÃ", "Ã©"])}
    backend = RawTokenizer(BPE(vocab, [("s", "t"), ("o", "p"), ("Ġ", "Ã"), ("Ã", "©")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    return new_tokenizer(backend, bos_token="<s>", eos_token="</s>")


TOKENIZER, FALLBACK = byte_tokenizer(), llama_like()
TEXTS = st.text(alphabet="stop aé门🌉\n", max_size=24)


def write(tokens: list[int], *stop: str, **options: bool) -> tuple[list[Written], Writer]:
    writer = Writer(TOKENIZER, TOKENIZER.encode("ask:"), stop, **options)
    found = []
    for token in tokens:
        released = writer.add(Written(0, token, ""))
        if not stop:
            assert "�" not in "".join(each.text for each in released)
        found += released
        if writer.has_stopped:
            break
    return [*found, *writer.end()], writer


@given(text=TEXTS)
def test_tokens_put_together_are_the_text_and_each_is_told_once(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    written, writer = write(tokens)
    assert "".join(each.text for each in written) == text
    assert [each.token for each in written] == tokens
    assert not writer.has_stopped


@pytest.mark.parametrize("tokenizer", [TOKENIZER, FALLBACK], ids=["bytes", "fallback"])
@given(prompt=st.text(alphabet="a é门🌉", max_size=4), text=st.text(alphabet="a é门🌉", max_size=4))
@example(prompt="🌉门", text="🌉")
def test_a_text_is_the_same_behind_every_prompt(tokenizer: Tokenizer, prompt: str, text: str) -> None:
    """Also where the last tokens of the prompt begin within a character."""
    writer = Writer(tokenizer, tokenizer.encode(prompt))
    written = [each for token in tokenizer.encode(text) for each in writer.add(Written(0, token, ""))]
    assert "".join(each.text for each in [*written, *writer.end()]) == text


@pytest.mark.parametrize("tokenizer", [TOKENIZER, FALLBACK], ids=["bytes", "fallback"])
@given(n_broken=st.integers(0, 9), part=st.integers(0, 3))
def test_broken_bytes_before_a_character_do_not_break_it(tokenizer: Tokenizer, n_broken: int, part: int) -> None:
    bridge = tokenizer.encode("🌉")
    tokens = [*[bridge[part]] * n_broken, *bridge, *tokenizer.encode("a")]
    writer = Writer(tokenizer, [])
    written = [each for token in tokens for each in writer.add(Written(0, token, ""))]
    shown = "".join(each.text for each in written)
    assert shown.endswith("🌉a")
    assert shown.strip("�") == "🌉a"
    assert [each.token for each in written] == tokens


@given(text=TEXTS, stop=st.lists(st.text(alphabet="stop aé🌉", min_size=1, max_size=5), min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_before_it_however_its_tokens_are_cut(text: str, stop: list[str]) -> None:
    """The text up to the first place where one begins. (Where a whole token makes two true, the one that begins first.)"""
    written, writer = write(TOKENIZER.encode(text), *stop)
    places = [text.find(each) for each in stop if each in text]
    shown = "".join(each.text for each in written)
    assert writer.has_stopped == bool(places)
    if places:
        assert text.startswith(shown)
        assert any(text[len(shown) :].startswith(each) for each in stop)
        assert not any(each in shown for each in stop)
    else:
        assert shown == text


def test_nothing_of_a_stop_string_is_let_go_before_it_is_known() -> None:
    writer = Writer(TOKENIZER, [], ("stop it",))
    shown = ""
    for token in TOKENIZER.encode("no stop stop it"):
        shown += "".join(each.text for each in writer.add(Written(0, token, "")))
        assert not shown.endswith("stop i")
        assert "no stop stop it".startswith(shown)
    assert shown == "no stop "
    assert writer.has_stopped
    assert writer.end() == []


def test_bytes_that_never_become_a_character_are_let_go_in_the_end() -> None:
    broken = TOKENIZER.encode("门")[:2]
    written, _ = write([*TOKENIZER.encode("a"), *broken])
    assert "".join(each.text for each in written) == "a�"
    assert len(written) == 3
    lead = TOKENIZER.encode("🌉")[:1]
    writer = Writer(TOKENIZER, [])
    assert any(writer.add(Written(0, lead[0], "")) for _ in range(20))  # and do not wait forever


def test_special_tokens_are_no_text() -> None:
    written, _ = write([*TOKENIZER.encode("a"), TOKENIZER.eos_id or 0, *TOKENIZER.encode("b")])
    assert [each.text for each in written] == ["a", "", "b"]


def test_spaces_at_the_beginning_can_be_left_out() -> None:
    written, _ = write(TOKENIZER.encode("  \n a b"), skips_space=True)
    assert "".join(each.text for each in written) == "a b"


@pytest.mark.parametrize("text", ["w1 w2 w3", "w5"])
def test_a_tokenizer_that_drops_the_space_at_the_beginning_keeps_it_between(text: str) -> None:
    tokenizer = tiny_tokenizer()
    writer = Writer(tokenizer, tokenizer.encode("w9 w8"))
    shown = "".join(each.text for token in tokenizer.encode(text) for each in writer.add(Written(0, token, "")))
    assert shown == f" {text}"
