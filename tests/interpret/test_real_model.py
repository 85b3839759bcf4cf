"""On a real model's embeddings and real text: latents that point at frequent tokens are labelled with those tokens' words."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mohole import artifact, catalogue, config, harvest, interpret
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus, build_corpus, read_documents
from mohole.dictionary import SparseAutoencoder
from mohole.execute import Cores, open_executor
from mohole.interpret import Labels
from mohole.model import load_model
from mohole.store import Store
from mohole.store.listing import BULK

pytestmark = pytest.mark.shared


def test_latents_that_point_at_a_token_are_named_after_it(shared_dir: Path, tmp_path: Path) -> None:
    path = str(shared_dir / "data" / "stories260k")
    model = load_model(path)
    text = shared_dir / "data" / "text-english" / "tinystories_sample.txt"
    documents = read_documents(config.TextCorpus(path=str(text)))
    with artifact.create(tmp_path / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
        build_corpus(
            out, documents, model.tokenizer, context=128, has_bos=True, held_out=0.2, seed=0, max_tokens=30_000
        )
    corpus = Corpus.open(tmp_path / "corpus")
    settings, inputs = config.Harvest(hookpoints=("embed",)), artifact.Inputs(kind="activations", config={}, seed=0)
    with (
        artifact.create(tmp_path / "rows", inputs, bulk=BULK) as out,
        open_executor("inline", Cores(1, 1)) as executor,
    ):
        harvest.harvest(out, model, corpus, settings, executor, model_settings=config.Model(path=path), seed=0)
    store = Store.open(tmp_path / "rows")

    frequent = np.array([token for token, _ in Counter(corpus.tokens.tolist()).most_common(40)])
    first = [int(np.flatnonzero(corpus.tokens == token)[0]) for token in frequent]
    rows = torch.from_numpy(store.take("embed", np.array(first)))
    directions = torch.nn.functional.normalize(rows, dim=1)
    dictionary = SparseAutoencoder("embed", config.TopK(k=1), directions, torch.zeros(40), directions, torch.zeros(64))
    with artifact.create(tmp_path / "catalogue", artifact.Inputs(kind="catalogue", config={}, seed=0)) as out:
        catalogue.build(out, catalogue.InMemory(model, dictionary, corpus, store), config.Catalogue(), seed=0)
    with artifact.create(tmp_path / "labels", artifact.Inputs(kind="labels", config={}, seed=0)) as out:
        found = Catalogue.open(tmp_path / "catalogue")
        interpret.label(out, found, corpus, config.Label(firing_share=0.9), seed=0)
    labels = Labels.open(tmp_path / "labels")

    assert np.median([label.f1 for label in labels]) > 0.99
    own = [found.feature(latent).promoted[0][0] == corpus.pieces[token] for latent, token in enumerate(frequent)]
    assert np.mean(own) > 0.9  # input and output embeddings are tied in this model
    texts = {corpus.pieces[token]: labels.label(latent).text for latent, token in enumerate(frequent)}
    assert {piece: texts[piece] for piece in (" the", " and", ".")} == {" the": "“the”", " and": "“and”", ".": "“.”"}
