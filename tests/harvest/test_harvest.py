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
from mohole.config import Harvest, Model
from mohole.corpus import Corpus, Document, build_corpus
from mohole.corpus.slices import slices
from mohole.errors import HookpointError, NumericsError
from mohole.execute import Cores, open_executor
from mohole.harvest import harvest
from mohole.model import LanguageModel, new_model
from mohole.model.load import new_tokenizer
from mohole.store import Store
from mohole.store.listing import BULK
from mohole.store.verify import verify

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


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks load the model by name; ours is in no folder to be loaded from."""
    monkeypatch.setattr("mohole.harvest.slice.shared_model", lambda _: model())


def fill(out: Path, corpus: Corpus, seed: int = 0, **settings: object) -> None:
    chosen = Harvest(**({"hookpoints": HOOKPOINTS, "dtype": "float32"} | settings))  # type: ignore[arg-type]
    with open_executor("inline", Cores(1, 1)) as executor:
        harvest(out, model(), corpus, chosen, executor, model_settings=Model(), seed=seed, cell_bytes=512)


def collect(out: Path, corpus: Corpus, seed: int = 0, **settings: object) -> Store:
    with artifact.create(out, Inputs(kind="activations", config={}, seed=0), bulk=BULK) as draft:
        fill(draft, corpus, seed, **settings)
    store = Store.open(out)
    assert verify(store).holds
    return store


def test_each_row_is_the_activation_of_its_token_in_its_window_run_alone(corpus: Corpus, tmp_path: Path) -> None:
    store = collect(tmp_path / "a", corpus)
    for window in range(len(corpus.windows)):
        start, length = int(corpus.windows.start[window]), int(corpus.windows.length[window])
        tokens = torch.tensor([[1, *corpus.tokens[start : start + length].tolist()]])
        alone = model().read(tokens, HOOKPOINTS)
        own = store.tokens[(store.tokens >= start) & (store.tokens < start + length)]
        places = torch.from_numpy(own - start + 1)
        for hookpoint in HOOKPOINTS:
            rows = torch.from_numpy(store.take(hookpoint, own))
            torch.testing.assert_close(rows, alone[hookpoint][0, places], rtol=1e-5, atol=1e-5)


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
        np.testing.assert_allclose(everything(one, hookpoint), everything(other, hookpoint), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shard_tokens", [1, 50, 100])
def test_the_slices_change_nothing_but_rounding_and_the_order_is_that_of_the_seed(
    corpus: Corpus, tmp_path: Path, shard_tokens: int
) -> None:
    one, other = collect(tmp_path / "a", corpus, 5), collect(tmp_path / "b", corpus, 5, shard_tokens=shard_tokens)
    assert len(other.layout.shards[HOOKPOINTS[0]]) == len(slices(corpus, shard_tokens)) > 1
    assert one.facts.order == other.facts.order
    assert one.facts.order.seed == 5
    assert (
        len({shard.cells for shard in other.layout.shards[HOOKPOINTS[0]]}) == 1
    )  # a short last run is cut as the others
    for hookpoint in HOOKPOINTS:
        np.testing.assert_allclose(everything(one, hookpoint), everything(other, hookpoint), rtol=1e-5, atol=1e-5)


def everything(store: Store, hookpoint: str) -> np.ndarray:
    return store.take(hookpoint, store.tokens)


@pytest.mark.parametrize(("shard_tokens", "least"), [(1, 1), (12, 1), (40, 29), (10**9, 0)])
def test_slices_are_whole_windows_neighbours_and_not_longer_than_asked(
    corpus: Corpus, shard_tokens: int, least: int
) -> None:
    found = slices(corpus, shard_tokens)
    assert [window for first, last in found for window in range(first, last)] == list(range(len(corpus.windows)))
    for first, last in found:
        n_tokens = int(corpus.windows.length[first:last].sum())
        assert n_tokens <= shard_tokens or last == first + 1
        assert n_tokens >= least or last == len(corpus.windows)


def test_a_harvest_goes_on_with_the_slices_that_are_there(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(tmp_path / "a", corpus, shard_tokens=50)
    inputs, seen = Inputs(kind="activations", config={}, seed=0), 0
    read = model().read

    def dies(*arguments: object, **options: object) -> object:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt
        return read(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LanguageModel, "read", lambda _, *arguments, **options: dies(*arguments, **options))
    with (
        pytest.raises(KeyboardInterrupt),
        artifact.create(tmp_path / "b", inputs, resume=True, bulk=BULK) as draft,
    ):
        fill(draft, corpus, shard_tokens=50)
    assert len(list(draft.glob("tasks/runs/*"))) == 3
    with artifact.create(tmp_path / "b", inputs, resume=True, bulk=BULK) as draft:
        fill(draft, corpus, shard_tokens=50)
    assert seen == 4 + len(slices(corpus, 50)) - 3
    for file in filter(Path.is_file, (tmp_path / "a").rglob("*")):
        assert (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes() == file.read_bytes()
    assert whole.manifest.digest == Store.open(tmp_path / "b").manifest.digest


@pytest.mark.parametrize(
    ("dtype", "share", "error"), [("bfloat16", 0.5, 2**-8), ("float16", 0.5, 2**-10), ("int8", 0.25, 0.02)]
)
def test_small_storage_keeps_the_bytes_and_the_digits_it_says(
    corpus: Corpus, tmp_path: Path, dtype: str, share: float, error: float
) -> None:
    full, small = collect(tmp_path / "a", corpus), collect(tmp_path / "b", corpus, dtype=dtype)
    for hookpoint in HOOKPOINTS:
        rows, stored = everything(full, hookpoint), everything(small, hookpoint)
        assert np.abs(stored - rows).max() <= error * np.abs(rows).max()
        widths = [store.facts.formats[hookpoint].row_bytes for store in (full, small)]
        assert widths[1] == share * widths[0]


def test_int8_scales_are_those_of_the_first_tokens_and_no_file_of_theirs_is_left(
    corpus: Corpus, tmp_path: Path
) -> None:
    store = collect(tmp_path / "a", corpus, dtype="int8")
    full = collect(tmp_path / "b", corpus)
    for hookpoint in HOOKPOINTS:
        largest = np.abs(everything(full, hookpoint)).max(0)
        scales = np.asarray(store.facts.formats[hookpoint].scales)
        assert (scales * 127 >= largest).all()  # the whole corpus is looked at: it is smaller than what is looked at
    assert store.facts.n_clipped == dict.fromkeys(HOOKPOINTS, 0)
    assert not (tmp_path / "a" / "scales.json").exists()


def test_transformer_lens_names_are_stored_in_our_words(corpus: Corpus, tmp_path: Path) -> None:
    assert collect(tmp_path / "a", corpus, hookpoints=("blocks.1.hook_resid_post",)).hookpoints == ("resid_post.1",)


def test_a_hookpoint_the_model_lacks_is_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(HookpointError, match=r"resid_post\.3: tiny has 3 layers"):
        fill(tmp_path, corpus, hookpoints=("resid_post.3",))


def test_a_value_that_is_no_number_is_named_with_its_token(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = int(corpus.document_starts[7])
    embedding = model().hf.get_input_embeddings().weight  # type: ignore[operator]
    spoiled = embedding.detach().clone()
    spoiled[corpus.tokens[token]] = float("inf")
    monkeypatch.setattr(embedding, "data", spoiled)
    with pytest.raises(NumericsError, match=r"NaN or infinity at token \d+ \(.*\) of document \d+"):
        fill(tmp_path, corpus)
