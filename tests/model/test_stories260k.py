"""A real trained model: its published greedy text to the character, its loss on real stories, rows against transformers' own."""

from pathlib import Path

import pytest
import torch

from mohole.model import Edit, EditTally, LanguageModel, load_model

pytestmark = pytest.mark.shared

# `expected_stdout` of karpathy/llama2.c test_all.py, its first lines
BEGINNING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, "
    "red ball. She wanted to play with it, but it was too high."
)


@pytest.fixture(scope="module")
def model(shared_dir: Path) -> LanguageModel:
    return load_model(shared_dir / "data" / "stories260k")


def test_greedy_text_is_the_published_one(model: LanguageModel) -> None:
    prompt = torch.tensor([[model.bos_id]])
    texts = [model.generate(prompt, max_new_tokens=80, use_cache=use_cache) for use_cache in (True, False)]
    assert torch.equal(texts[0], texts[1])
    assert model.tokenizer.decode(texts[0][0, 1:]).startswith(BEGINNING)


def test_the_loss_on_stories_is_the_published_one(model: LanguageModel, shared_dir: Path) -> None:
    """1.514 nats per token in the data's README, over the whole sample; within 0.05 on a part of it."""
    text = (shared_dir / "data" / "text-english" / "tinystories_sample.txt").read_text(encoding="utf-8")
    stories = [story.strip() for story in text.split("<|endoftext|>") if story.strip()][:150]
    total, count = 0.0, 0
    for story in stories:
        tokens = model.tokenizer.prompt(story)[:, :512]
        logits = model.logits(tokens)[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
        count += tokens.shape[1] - 1
    assert total / count == pytest.approx(1.514, abs=0.05)


def test_the_hookpoints_are_proved(model: LanguageModel) -> None:
    assert model.self_test is not None
    assert model.self_test.first_failure() is None
    assert (model.n_layers, model.d_model, model.vocab_size, model.bos_id) == (5, 64, 512, 1)


def test_rows_of_a_padded_batch_are_those_of_each_text_alone(model: LanguageModel) -> None:
    texts = ["Once upon a time", "The cat sat on the mat and looked at the big red ball.", "Hi"]
    prompts = [model.tokenizer.prompt(text)[0] for text in texts]
    batch = torch.zeros(3, max(map(len, prompts)), dtype=torch.int64)
    for row, prompt in zip(batch, prompts, strict=True):
        row[: len(prompt)] = prompt
    together = model.read(batch, ["resid_post.4", "mlp_out.2"])
    for index, prompt in enumerate(prompts):
        alone = model.read(prompt[None], ["resid_post.4", "mlp_out.2"])
        for name, rows in alone.items():
            torch.testing.assert_close(together[name][index, : len(prompt)], rows[0], rtol=1e-4, atol=1e-4)


def test_a_steered_text_is_another_text_and_the_tally_proves_it(model: LanguageModel) -> None:
    prompt = model.tokenizer.prompt("Once upon a time")
    plain = model.generate(prompt, max_new_tokens=20)
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 3
    tally = EditTally()
    steered = model.generate(
        prompt, max_new_tokens=20, edits=[Edit("resid_post.2", lambda rows, _: rows + direction)], tally=tally
    )
    assert not torch.equal(plain, steered)
    assert tally.complete
    assert tally.n_rows == steered.shape[1] - 1
    nothing = [Edit("resid_post.2", lambda rows, _: rows)]
    assert torch.equal(model.generate(prompt, max_new_tokens=20, edits=nothing), plain)
