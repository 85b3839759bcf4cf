"""The gap to the entropy floor is what a slow loop finds: nats of each token that a model predicts, over their number."""

import math
from typing import Any

import pytest
import torch

from mohole.model import LanguageModel, load_model
from mohole.planted.measures import floor_gap
from mohole.planted.stream import entropy_floor, pages


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("planted", self_test=False)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_vocabulary(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every token, whatever the documents' lengths: so no padding is counted, and none of the text is left out."""

    def know_nothing(self: LanguageModel, tokens: torch.Tensor, *edits: Any) -> torch.Tensor:
        return torch.zeros(*tokens.shape, self.vocab_size)

    monkeypatch.setattr(LanguageModel, "logits", know_nothing)
    gap = floor_gap(model, 5, 40)
    assert gap.floor == entropy_floor(model.tokenizer, 5, 40)
    assert gap.loss == pytest.approx(math.log(model.vocab_size), rel=1e-5)
    assert gap.nats_per_token == gap.loss - gap.floor.nats / gap.floor.n_tokens


def test_the_loss_is_that_of_each_document_read_alone(model: LanguageModel) -> None:
    lost, n_tokens, nats = 0.0, 0, 0.0
    for page in pages(8, 12, held_out=None):
        ids = [model.bos_id, *model.tokenizer.encode(page.document().text), model.tokenizer.eos_id]
        logits = model.logits(torch.tensor([ids]))[0].double().log_softmax(-1)
        lost -= sum(float(logits[place, following]) for place, following in enumerate(ids[1:]))
        n_tokens, nats = n_tokens + len(ids) - 1, nats + page.nats
    gap = floor_gap(model, 8, 12)
    assert (gap.floor.n_tokens, gap.floor.nats) == (n_tokens, nats)
    assert gap.loss == pytest.approx(lost / n_tokens, rel=1e-4)
