"""Harvest: one row per token of text, each the model's own activation of its window run alone, whatever the batches."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Harvest
from mohole.corpus import Corpus, Document, build_corpus
from mohole.errors import HookpointError, NumericsError
from mohole.harvest import harvest
from mohole.model import LanguageModel, new_model
from mohole.model.load import new_tokenizer
from mohole.store import Store

HOOKPOINTS = ("resid_post.0", "mlp_out.1")


@cache
def model() -> LanguageModel:
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(45))]
    backend = RawTokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = new_tokenizer(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    config = {
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
        "vocab_size": 48, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
    }  # fmt: skip
    return new_model(config, seed=0, tokenizer=tokenizer, name="tiny")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 30, size=20)
    texts = [" ".join(f"w{i}" for i in draw.integers(0, 45, size=length)) for length in lengths]
    texts[4] = "w1 </s> w2 w3 </s>"  # special tokens in the text itself
    with artifact.create(tmp_path / "corpus", Inputs(kind="corpus", config={}, seed=0)) as draft:
        build_corpus(draft, map(Document, texts), model().tokenizer, context=12, has_bos=True, held_out=0.3, seed=0)
    return Corpus.open(tmp_path / "corpus")


def collect(out: Path, corpus: Corpus, **settings: object) -> Store:
    with artifact.create(out, Inputs(kind="activations", config={}, seed=0)) as draft:
        harvest(draft, model(), corpus, Harvest(hookpoints=HOOKPOINTS, **settings))  # type: ignore[arg-type]
    return Store.open(out)


def test_each_row_is_the_activation_of_its_token_in_its_window_run_alone(corpus: Corpus, tmp_path: Path) -> None:
    store = collect(tmp_path / "a", corpus)
    for window in range(len(corpus.windows)):
        start, length = int(corpus.windows.start[window]), int(corpus.windows.length[window])
        tokens = torch.tensor([[1, *corpus.tokens[start : start + length].tolist()]])
        alone = model().read(tokens, HOOKPOINTS)
        rows = np.flatnonzero((store.tokens >= start) & (store.tokens < start + length))
        places = torch.from_numpy(store.tokens[rows] - start + 1)
        for hookpoint in HOOKPOINTS:
            torch.testing.assert_close(store.take(hookpoint, rows), alone[hookpoint][0, places], rtol=1e-5, atol=1e-5)


def test_every_token_of_text_has_one_row_and_special_tokens_have_none(corpus: Corpus, tmp_path: Path) -> None:
    store = collect(tmp_path / "a", corpus)
    expected = [token for token in range(corpus.n_tokens) if corpus.tokens[token] > 2]
    assert store.tokens.tolist() == expected
    assert len(expected) == corpus.n_tokens - 2
    assert store.held_out.tolist() == corpus.held_out[corpus.document_of(store.tokens)].tolist()


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_the_batch_changes_nothing_but_rounding(corpus: Corpus, tmp_path: Path, batch_tokens: int) -> None:
    one, other = collect(tmp_path / "a", corpus), collect(tmp_path / "b", corpus, batch_tokens=batch_tokens)
    for hookpoint in HOOKPOINTS:
        torch.testing.assert_close(
            one.rows(hookpoint, 0, one.n_rows), other.rows(hookpoint, 0, other.n_rows), rtol=1e-5, atol=1e-5
        )


def test_half_precision_storage_halves_the_bytes_and_keeps_three_digits(corpus: Corpus, tmp_path: Path) -> None:
    full, half = collect(tmp_path / "a", corpus), collect(tmp_path / "b", corpus, dtype="float16")
    torch.testing.assert_close(full.rows(HOOKPOINTS[0], 0, 50), half.rows(HOOKPOINTS[0], 0, 50), rtol=2e-3, atol=1e-3)
    assert (tmp_path / "b" / "rows.safetensors").stat().st_size < 0.6 * (
        tmp_path / "a" / "rows.safetensors"
    ).stat().st_size


def test_transformer_lens_names_are_stored_in_our_words(corpus: Corpus, tmp_path: Path) -> None:
    with artifact.create(tmp_path / "a", Inputs(kind="activations", config={}, seed=0)) as draft:
        harvest(draft, model(), corpus, Harvest(hookpoints=("blocks.1.hook_resid_post",)))
    assert Store.open(tmp_path / "a").hookpoints == ("resid_post.1",)


def test_a_hookpoint_the_model_lacks_is_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(HookpointError, match=r"resid_post\.3: tiny has 3 layers"):
        harvest(tmp_path, model(), corpus, Harvest(hookpoints=("resid_post.3",)))


def test_a_value_that_is_no_number_is_named_with_its_token(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = int(corpus.document_starts[7])
    embedding = model().hf.get_input_embeddings().weight  # type: ignore[operator]
    spoiled = embedding.detach().clone()
    spoiled[corpus.tokens[token]] = float("inf")
    monkeypatch.setattr(embedding, "data", spoiled)
    with pytest.raises(NumericsError, match=r"NaN or infinity at token \d+ \(.*\) of document \d+"):
        harvest(tmp_path, model(), corpus, Harvest(hookpoints=HOOKPOINTS))
