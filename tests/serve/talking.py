"""A run of the built-in model that can be talked to, made in a second: one latent of its dictionary is the bridge. No tests."""

from pathlib import Path

import numpy as np
import torch

from mohole import artifact, catalogue, config
from mohole.artifact import Inputs, read_manifest
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import SparseAutoencoder
from mohole.dictionary.files import save
from mohole.harvest.slice import documents_of
from mohole.model import LanguageModel
from mohole.planted.bridge import mean_difference
from mohole.planted.stream import documents
from mohole.store import Store, write_store

HOOKPOINT = "resid_post.1"
BRIDGE = 0
N_LATENTS = 4


def make_talking_run(run: Path, model: LanguageModel) -> Path:
    """Corpus, dictionary and catalogue of the built-in model; latent 0 is the direction from other rows to the bridge's."""
    texts = [document.text for document in documents(5, 12, held_out=None)]
    with artifact.create(
        run / "corpus", Inputs(kind="corpus", config={}, seed=0, parents={"model": model.model_hash})
    ) as out:
        listed = (Document(text) for text in texts)
        build_corpus(out, listed, model.tokenizer, context=48, has_bos=True, held_out=0.2, seed=7)
    corpus = Corpus.open(run / "corpus")
    sae = dictionary(model)
    with artifact.create(run / HOOKPOINT / "dictionary", Inputs(kind="dictionary", config={}, seed=0)) as out:
        save(sae, out)
    parents = {"model": model.model_hash, "corpus": read_manifest(run / "corpus").digest}
    parents["dictionary"] = read_manifest(run / HOOKPOINT / "dictionary").digest
    write_store(run / ".rows", {HOOKPOINT: _rows(model, corpus)}, documents_of(corpus), dtype="float32")
    with artifact.create(
        run / HOOKPOINT / "catalogue", Inputs(kind="catalogue", config={}, seed=0, parents=parents)
    ) as out:
        source = catalogue.InMemory(model, sae, corpus, Store.open(run / ".rows"))
        catalogue.build(out, source, config.Catalogue(context_tokens=12), seed=7)
    return run


def dictionary(model: LanguageModel) -> SparseAutoencoder:
    """The bridge, and three directions that were drawn."""
    bridge = mean_difference(model, HOOKPOINT, seed=3, n_documents=60)
    others = torch.randn(N_LATENTS - 1, model.d_model, generator=torch.Generator().manual_seed(1))
    others = torch.nn.functional.normalize(others, dim=1)
    ways = torch.cat([bridge.direction[None], others])
    bias = torch.cat([bridge.bias, torch.zeros(N_LATENTS - 1)])
    return SparseAutoencoder(HOOKPOINT, config.ReLU(), ways.clone(), bias, ways, torch.zeros(model.d_model))


def _rows(model: LanguageModel, corpus: Corpus) -> np.ndarray:
    """Of every token, each document alone: near enough for what a catalogue is here."""
    found = []
    for start, end in zip(corpus.document_starts[:-1], corpus.document_starts[1:], strict=True):
        tokens = torch.tensor([[model.bos_id or 0, *corpus.tokens[start:end].tolist()]])[:, : model.context]
        rows = model.read(tokens, [HOOKPOINT])[HOOKPOINT][0, 1:]
        found.append(torch.cat([rows, rows.new_zeros(int(end - start) - len(rows), rows.shape[1])]))
    return torch.cat(found).numpy()
