"""Sampling: greedy is the maximum, draws have the model's distribution, and a row's text depends on its seed and place only."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mohole.errors import ConfigError, ModelError, NumericsError
from mohole.model import LanguageModel
from mohole.model.generate import Sampling, choose, choose_each, generate

Tiny = Callable[[str], LanguageModel]


def test_greedy_takes_the_first_maximum() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, -1.0, 0.0, 5.0]])
    assert choose(logits, temperature=0, seed=0, step=0).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [1e-300, 5e-324])
def test_next_to_no_temperature_is_none(temperature: float) -> None:
    """Logits over it are beyond any float: the likeliest all the same, not whatever NaN draws."""
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, -1.0, 0.25]])
    assert choose(logits, temperature=temperature, seed=1, step=0).tolist() == [1, 0]
    ways = [Sampling(temperature, 1.0, 1), Sampling(temperature, 0.5, 2)]
    assert choose_each(logits, ways, [0, 0]).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0])
    n_draws = 20000
    drawn = choose(logits.expand(n_draws, 4), temperature=temperature, seed=3, step=1)
    shares = torch.bincount(drawn, minlength=4) / n_draws
    expected = torch.softmax(logits / temperature, 0)
    assert shares[2] == 0  # what is impossible is never drawn
    deviation = (expected * (1 - expected) / n_draws).sqrt()
    assert bool((((shares - expected).abs()) <= 4 * deviation + 1e-9).all())


def test_a_row_does_not_depend_on_batch_size_length_or_cache(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("llama")
    both = model.generate(tokens, max_new_tokens=6, temperature=1.0, seed=4)
    assert torch.equal(model.generate(tokens[:1], max_new_tokens=6, temperature=1.0, seed=4)[0], both[0])
    assert torch.equal(model.generate(tokens, max_new_tokens=3, temperature=1.0, seed=4), both[:, :12])
    assert torch.equal(model.generate(tokens, max_new_tokens=6, temperature=1.0, seed=4, use_cache=False), both)
    same = tokens[:1].expand(2, -1)
    twins = model.generate(same, max_new_tokens=6, temperature=1.5, seed=4)
    assert not torch.equal(twins[0], twins[1])
    assert not torch.equal(model.generate(tokens, max_new_tokens=6, temperature=1.0, seed=5), both)


def test_the_global_generator_is_left_alone(tiny: Tiny, tokens: Tensor) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    tiny("llama").generate(tokens, max_new_tokens=2, temperature=1.0, seed=9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_stop_tokens_end_a_sequence_and_then_the_call(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("llama")
    free = model.generate(tokens, max_new_tokens=8)[:, 9:]
    stop = int(free[0, 1])
    stopped = model.generate(tokens, max_new_tokens=8, stop_tokens=[stop])[:, 9:]
    at = free[0].tolist().index(stop)
    assert torch.equal(stopped[0, : at + 1], free[0, : at + 1])
    assert bool((stopped[0, at:] == stop).all())
    alone = model.generate(tokens[:1], max_new_tokens=8, stop_tokens=[stop])
    assert alone.shape == (1, 9 + at + 1)
    everything = model.generate(tokens, max_new_tokens=8, stop_tokens=range(96))
    assert everything.shape == (2, 10)


def test_what_follows_a_stop_is_the_stop_again() -> None:
    """On a source of 0, 1, 2, 3, ... for one row and 5, 6, 7, ... for the other."""

    def count(ids: Tensor, cache: Any, first_position: int) -> tuple[Tensor, Any]:
        last = torch.tensor([0, 5]) + first_position + ids.shape[1] - 1
        return torch.nn.functional.one_hot(last, 20).float(), "cache"

    options: dict[str, Any] = {"temperature": 0.0, "seed": 0, "use_cache": True}
    start = torch.tensor([[19], [19]])
    text = generate(count, start, max_new_tokens=6, stop_tokens=[2, 8], **options)
    assert text.tolist() == [[19, 0, 1, 2, 2], [19, 5, 6, 7, 8]]
    assert generate(count, start, max_new_tokens=6, stop_tokens=[2], **options).tolist() == [
        [19, 0, 1, 2, 2, 2, 2],
        [19, 5, 6, 7, 8, 9, 10],
    ]


@pytest.mark.parametrize("drawn", [0.0, 1.0 - 2.0**-53])
def test_the_ends_of_the_range_draw_nothing_impossible(drawn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mohole.model.generate.uniform", lambda *_: np.array([drawn]))
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert choose(logits, temperature=1.0, seed=0, step=0).item() in (1, 2)


def test_tokens_are_told_as_they_are_made(tiny: Tiny, tokens: Tensor) -> None:
    seen: list[Tensor] = []
    text = tiny("gpt2").generate(tokens, max_new_tokens=4, on_token=seen.append)
    assert torch.equal(torch.stack(seen, dim=1), text[:, 9:])
    assert torch.equal(tiny("gpt2").generate(tokens, max_new_tokens=0), tokens)


def test_what_cannot_be_meant_is_refused(tiny: Tiny, tokens: Tensor) -> None:
    model = tiny("gpt2")
    with pytest.raises(ModelError, match="prompt and continuation take 109 positions, its context has 64"):
        model.generate(tokens, max_new_tokens=100)
    with pytest.raises(ConfigError, match="temperature: -1"):
        model.generate(tokens, max_new_tokens=1, temperature=-1.0)
    with pytest.raises(ConfigError, match="max_new_tokens: -1"):
        model.generate(tokens, max_new_tokens=-1)
    with pytest.raises(NumericsError, match="NaN at generation step 2"):
        choose(torch.tensor([[0.0, torch.nan]]), temperature=1.0, seed=0, step=2)
