"""Can the model still do what it could? Greedy accuracy on tasks, clean against reconstructed: this does not saturate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Task
from mohole.errors import StageError
from mohole.evaluate.in_model.edits import together
from mohole.evaluate.in_model.passages import text_mask
from mohole.evaluate.results import TaskResult
from mohole.evaluate.standin import StandIn
from mohole.metrics import require_finite, wilson
from mohole.model import LanguageModel
from mohole.progress import track

_LEAST_FILLED = 0.8  # share of a padded row that is prompt and answer


@dataclass(frozen=True)
class Prompted:
    """A prompt and its answer, as tokens."""

    tokens: list[int]
    """BOS where the model has one, prompt, answer."""
    n_answer: int


def measure_tasks(
    model: LanguageModel, spliced: StandIn, tasks: Sequence[Task], settings: Evaluate, *, has_bos: bool
) -> tuple[TaskResult, ...]:
    """Each task's accuracy, with and without the reconstruction. An answer is right when each of its tokens is the likeliest.

    One pass over prompt and answer decides that: greedy generation gives the answer if and only if each of its tokens is the
    likeliest after the right ones before it.

    Raises:
        StageError: a task without prompts, with an empty answer, or too long for the model.
    """
    results = []
    n_prompts = sum(min(len(task.prompts), settings.task_prompts) for task in tasks)
    with track(f"evaluate {spliced.name}: tasks", n_prompts, "prompts") as tracker:
        for task in tasks:
            sequences = prompted(model, task, has_bos)[: settings.task_prompts]
            n_clean = n_replaced = 0
            for batch in batched(sequences, settings.batch_tokens):
                clean, replaced = _n_right(model, spliced, batch, int(has_bos), task.name)
                n_clean, n_replaced = n_clean + clean, n_replaced + replaced
                tracker.advance(len(batch))
            n = len(sequences)
            results.append(
                TaskResult(task.name, n, n_clean / n, *wilson(n_clean, n), n_replaced / n, *wilson(n_replaced, n))
            )
    return tuple(results)


def prompted(model: LanguageModel, task: Task, has_bos: bool) -> list[Prompted]:
    """Each prompt with its answer. Raises: StageError: none, not one answer for each, or one without tokens."""
    if not task.prompts or len(task.prompts) != len(task.answers):
        raise StageError(
            f"task {task.name}: {len(task.prompts)} prompts and {len(task.answers)} answers; give one answer for each"
        )
    bos = [model.bos_id] if has_bos and model.bos_id is not None else []
    sequences = []
    for prompt, answer in zip(task.prompts, task.answers, strict=True):
        # Encoded as one text, as the model would meet it; a piece that spans the border belongs to the answer.
        ids, offsets = model.tokenizer.encode_with_offsets(prompt + answer)
        n_answer = sum(end > len(prompt) for _, end in offsets)
        if n_answer == 0 or n_answer == len(bos) + len(ids):
            raise StageError(
                f"task {task.name}: {prompt!r} + {answer!r} has no {'answer' if n_answer == 0 else 'prompt'} in tokens"
            )
        sequences.append(Prompted(bos + ids, n_answer))
    return sequences


def batched(sequences: list[Prompted], batch_tokens: int) -> list[list[Prompted]]:
    """Sequences of similar length together, longest first. One much shorter than its batch's longest starts another batch."""
    result: list[list[Prompted]] = []
    longest = 0
    for sequence in sorted(sequences, key=lambda sequence: -len(sequence.tokens)):
        is_like = len(sequence.tokens) >= _LEAST_FILLED * longest
        if result and is_like and longest * (len(result[-1]) + 1) <= batch_tokens:
            result[-1].append(sequence)
        else:
            result.append([sequence])
            longest = len(sequence.tokens)
    return result


def _n_right(model: LanguageModel, spliced: StandIn, batch: list[Prompted], first: int, task: str) -> tuple[int, int]:
    tokens, is_text, is_answer = padded(model, batch, first)
    clean = model.untouched(tokens, reads=spliced.needs_clean, changes=(*spliced.reads, *spliced.writes))
    replaced = model.logits(tokens, together([spliced], is_text, clean.rows), trunk=clean.trunk)
    return (
        int(all_likeliest(clean.logits, tokens, is_answer, task).sum()),
        int(all_likeliest(replaced, tokens, is_answer, f"{task}, replaced").sum()),
    )


def padded(model: LanguageModel, batch: list[Prompted], first: int) -> tuple[Tensor, Tensor, Tensor]:
    """One row for each: tokens, which of them are text (behind BOS, where `first` is 1), and which are the answer."""
    lengths = np.array([len(sequence.tokens) for sequence in batch])
    tokens = torch.zeros(len(batch), int(lengths.max()), dtype=torch.int64)
    is_answer = torch.zeros_like(tokens, dtype=torch.bool)
    for row, sequence in enumerate(batch):
        length = len(sequence.tokens)
        tokens[row, :length] = torch.tensor(sequence.tokens)
        is_answer[row, length - sequence.n_answer : length] = True
    return tokens, text_mask(tokens, lengths - first, first, model.special_ids), is_answer


def all_likeliest(logits: Tensor, tokens: Tensor, is_answer: Tensor, place: str) -> Bool[Tensor, " batch"]:
    """For each row, is every token of the answer the likeliest after the right ones before it?"""
    logits = logits.cpu()[:, :-1]
    require_finite(logits[is_answer[:, 1:]], f"task {place}: logits")
    right = (logits.argmax(-1) == tokens[:, 1:]) | ~is_answer[:, 1:]
    return right.all(1)
