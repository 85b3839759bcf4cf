"""The passes of a sweep: texts written, read again, other text and tasks, with another plan for each row of a batch.

Axes of lists: a plan, then an item (a text to write, other text, a task's prompt). Numbers are sums; dose_measures.py makes
measures of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mohole.act.dose import Trial
from mohole.act.interventions import Latent
from mohole.act.places import Place, place_of
from mohole.act.sources import Sources
from mohole.act.steering import Steered
from mohole.act.terms import Plan
from mohole.corpus import Task
from mohole.dictionary.readout import Readout, readout
from mohole.evaluate.in_model.passages import room_for_logits
from mohole.evaluate.in_model.tasks import Prompted, all_likeliest, prompted
from mohole.evaluate.in_model.tasks import batched as batched_prompts
from mohole.metrics import DocumentSums, kl_nats, require_finite, token_nats
from mohole.model import LanguageModel

_TASK_TOKENS = 4096
Item = TypeVar("Item")


@dataclass
class Written:
    """One text, and what reading it again found."""

    item: int
    """Which prompt and draw, the same at every strength."""
    prompt: Int[Tensor, " position"]
    tokens: list[int]
    """Without an end-of-text token."""
    said: str
    nats: float = 0.0
    """Summed -ln p of the tokens, of the model unsteered."""
    n_active: int = 0
    """Tokens at which one of the latents is active."""


def write_texts(model: LanguageModel, plans: Sequence[Plan], trial: Trial) -> list[list[Written]]:
    """Continue every prompt under every plan. A prompt's draw is the same under all of them, whatever stands beside it."""
    prompts = [model.tokenizer.prompt(text)[0] for text in trial.prompts for _ in range(trial.n_samples)]
    stops = [] if model.tokenizer.eos_id is None else [model.tokenizer.eos_id]
    found: list[list[Written]] = [[] for _ in plans]
    jobs = [(plan, item) for plan in range(len(plans)) for item in range(len(prompts))]
    for part in _cut(jobs, trial.batch_rows):
        own = [prompts[item] for _, item in part]
        most = max(map(len, own))
        padding = [most - len(each) for each in own]
        rows = torch.stack([torch.cat([each.new_zeros(most - len(each)), each]) for each in own])
        steered = Steered(model, [plans[plan] for plan, _ in part]).generate(
            rows, padding=padding, max_new_tokens=trial.max_new_tokens, temperature=trial.temperature,
            seed=[trial.seed + item for _, item in part], stop_tokens=stops,
        )  # fmt: skip
        for (plan, item), prompt, tokens in zip(part, own, steered.tokens[:, most:].tolist(), strict=True):
            kept = _before_the_end(tokens, stops)
            found[plan].append(Written(item, prompt, kept, model.tokenizer.decode_behind(prompt.tolist(), kept)))
    return found


def _before_the_end(tokens: list[int], stops: Sequence[int]) -> list[int]:
    return next((tokens[:place] for place, token in enumerate(tokens) if token in stops), tokens)


class Judge:
    """The model as it is, reading texts: how likely they are, and where latents are active."""

    def __init__(self, model: LanguageModel, sources: Sources, latents: Sequence[Latent]) -> None:
        self.model = model
        self.latents = tuple(Latent(each.latent, sources.name(each)) for each in latents)
        together: dict[tuple[str, int], list[Place]] = {}
        for each in self.latents:
            assert each.hookpoint is not None
            place = place_of(sources.dictionaries[each.hookpoint], each.latent)
            together.setdefault((each.hookpoint, place.layer), []).append(place)
        self.readouts: list[tuple[tuple[str, ...], Readout]] = [
            (
                tuple(model.canonical(read) for read in places[0].reads),
                readout(sources.dictionaries[name], layer, [place.latent for place in places], model.device),
            )
            for (name, layer), places in together.items()
        ]

    def read(self, written: Sequence[Sequence[Written]], batch_rows: int) -> None:
        """Fill in what each text costs, and where latents are active in it."""
        texts = sorted((text for own in written for text in own), key=lambda text: len(text.prompt) + len(text.tokens))
        texts = [text for text in texts if text.tokens]
        longest = max((len(text.prompt) + len(text.tokens) for text in texts), default=1)
        for part in _cut(texts, _rows_at_once(self.model, batch_rows, longest)):
            self._read(part)

    def _read(self, texts: Sequence[Written]) -> None:
        whole = [torch.cat([text.prompt, text.prompt.new_tensor(text.tokens)]) for text in texts]
        tokens, is_inside = _right_padded(whole)
        n_prompt = torch.tensor([len(text.prompt) for text in texts])[:, None]
        is_written = is_inside & (torch.arange(tokens.shape[1]) >= n_prompt)
        names = list(dict.fromkeys(name for reads, _ in self.readouts for name in reads))
        seen = self.model.untouched(tokens, reads=names)
        row = is_written.nonzero()[:, 0]
        nats = token_nats(seen.logits[:, :-1][is_written[:, 1:].to(seen.logits.device)].cpu(), tokens[is_written])
        require_finite(nats, "sweep: a prediction of written text")
        active = torch.zeros(len(row), dtype=torch.bool)
        for reads, own in self.readouts:
            rows = torch.cat([seen.rows[name] for name in reads], dim=-1)
            found = own(rows[is_written.to(rows.device)].float())
            active |= (found != 0).any(dim=1).cpu()
        by_text = torch.zeros(len(texts), 2, dtype=torch.float64)
        by_text.index_add_(0, row, torch.stack([nats, active.double()], dim=1))
        for text, (cost, n_active) in zip(texts, by_text.tolist(), strict=True):
            text.nats, text.n_active = cost, int(n_active)


@dataclass(frozen=True)
class OtherText:
    """Text that nobody asked to be steered. The first half of each counts as its prompt."""

    model: LanguageModel
    texts: Sequence[Int[Tensor, "1 position"]]

    def compare(self, plans: Sequence[Plan], batch_rows: int) -> list[DocumentSums]:
        """For each plan the KL of its predictions from the unsteered ones, summed by text."""
        sums = [DocumentSums(("kl", "pairs")) for _ in plans]
        order = sorted(range(len(self.texts)), key=lambda item: self.texts[item].shape[1])
        longest = self.texts[order[-1]].shape[1]
        n_rows = _rows_at_once(self.model, batch_rows, longest)
        for items in _cut(order, max(1, n_rows // len(plans))):
            tokens, is_inside = _right_padded([self.texts[item][0] for item in items])
            lengths = is_inside.sum(1)
            n_prompt = (lengths + 1) // 2
            place = torch.arange(tokens.shape[1] - 1)
            scored = (place >= n_prompt[:, None] - 1) & (place < lengths[:, None] - 1)
            clean = self.model.logits(tokens)[:, :-1]
            clean = clean[scored.to(clean.device)]
            documents = torch.tensor(items)[scored.nonzero()[:, 0]].numpy()
            for numbers in _cut(range(len(plans)), max(1, n_rows // len(items))):
                steered = Steered(self.model, [plans[number] for number in numbers for _ in items])
                logits = steered.logits(tokens.repeat(len(numbers), 1), n_prompt=n_prompt.tolist() * len(numbers))
                for number, own in zip(numbers, torch.split(logits, len(items)), strict=True):
                    nats = kl_nats(clean, own[:, :-1][scored.to(own.device)]).cpu().numpy()
                    values = np.stack([nats, np.ones(len(nats))], axis=1)
                    sums[number].add(documents, values, place="sweep: KL on other text")
        return sums


def right_by_task(
    model: LanguageModel, plans: Sequence[Plan], tasks: Sequence[Task], batch_rows: int
) -> list[dict[str, tuple[int, int]]]:
    """For each plan and task, right answers and prompts."""
    found: list[dict[str, tuple[int, int]]] = [{} for _ in plans]
    for task in tasks:
        right = np.zeros(len(plans), dtype=np.int64)
        sequences = prompted(model, task, has_bos=True)
        for batch in batched_prompts(sequences, _TASK_TOKENS):
            for part in _cut(batch, max(1, _rows_at_once(model, batch_rows, len(batch[0].tokens)) // len(plans))):
                right += _n_right(model, plans, part, task.name)
        for own, n_right in zip(found, right.tolist(), strict=True):
            own[task.name] = n_right, len(sequences)
    return found


def _n_right(
    model: LanguageModel, plans: Sequence[Plan], batch: Sequence[Prompted], task: str
) -> Int[np.ndarray, " plan"]:
    tokens, is_inside = _right_padded([torch.tensor(each.tokens) for each in batch])
    lengths = is_inside.sum(1)
    n_prompt = lengths - torch.tensor([each.n_answer for each in batch])
    is_answer = is_inside & (torch.arange(tokens.shape[1]) >= n_prompt[:, None])
    steered = Steered(model, [plan for plan in plans for _ in batch])
    logits = steered.logits(tokens.repeat(len(plans), 1), n_prompt=n_prompt.tolist() * len(plans))
    return np.array(
        [int(all_likeliest(own, tokens, is_answer, task).sum()) for own in torch.split(logits, len(batch))],
        dtype=np.int64,
    )


def _right_padded(texts: Sequence[Tensor]) -> tuple[Int[Tensor, "b position"], Bool[Tensor, "b position"]]:
    """One row for each, filled up with zeros, and which tokens are of the text."""
    lengths = torch.tensor([len(each) for each in texts])
    tokens = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


def _rows_at_once(model: LanguageModel, batch_rows: int, length: int) -> int:
    return max(1, min(batch_rows, room_for_logits(model, batch_rows * length) // length))


def _cut(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[first : first + size] for first in range(0, len(items), size))
