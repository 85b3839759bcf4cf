"""The embedder of the extra: its arithmetic against transformers', its files by checksum, its numbers where it is there."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mohole.errors import ConfigError
from mohole.search import minilm
from mohole.search.labels import LabelIndex
from mohole.search.meaning import Embedder
from mohole.search.minilm import MiniLM, bert


def test_its_arithmetic_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
                        max_position_embeddings=20)  # fmt: skip
    theirs = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.randint(0, 50, (3, 9))
    is_text = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=is_text.long()).last_hidden_state
        found = bert(dict(theirs.state_dict()), ids, is_text, n_heads=4)
    torch.testing.assert_close(found[is_text], expected[is_text], rtol=1e-4, atol=1e-5)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_of_models")
    with pytest.raises(ConfigError, match=r"pip install 'mohole\[meaning\]'"):
        MiniLM.open()


def test_other_bytes_are_refused_and_no_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_package_of_models"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('this code was run')")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(minilm, "PACKAGE", package.name)
    with pytest.raises(ConfigError, match=r"model\.safetensors: not the published file"):
        MiniLM.open()


@pytest.mark.skipif(importlib.util.find_spec(minilm.PACKAGE) is None, reason="needs the extra `meaning`")
def test_it_gives_the_numbers_that_its_makers_show() -> None:
    embedder = MiniLM.open()
    assert isinstance(embedder, Embedder)
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    rows = embedder.embed(texts)
    np.testing.assert_allclose(rows[1:] @ rows[0], [0.695, 0.943, 0.257], atol=1e-3)  # the example of its model card
    np.testing.assert_allclose(embedder.embed([texts[3], "x " * 400])[0], rows[3], atol=1e-5)
    labels = ["red wine and cheese", "deception and lying", "", "words about fear"]
    assert LabelIndex(labels, embedder=embedder).search("dishonesty", 2)[0].latent == 1
