"""Unlearning: the latents of one task are taken out until it cannot be done, and what else is lost is counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.corpus import Task
from mohole.errors import StageError
from mohole.evaluate.in_model.edits import replacing
from mohole.evaluate.in_model.tasks import Prompted, all_likeliest, batched, padded, prompted
from mohole.evaluate.results import Rated
from mohole.evaluate.suites.coders import SIZES, Coder, along, span
from mohole.evaluate.suites.material import Material, Unit, constant, rated
from mohole.evaluate.suites.readout import RowEdit, on_tensors
from mohole.evaluate.suites.removal import removing
from mohole.keys import Use, words
from mohole.metrics import Masks
from mohole.metrics.measure import Statistic, ratio
from mohole.metrics.sparse_probe import class_gap, fit_probe
from mohole.metrics.unlearning import LEAST_KEPT, Tried, choose_edit, unlearned
from mohole.model import Edit

Bools = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_WELL = 0.5
"""Above chance: what a model can do well."""
_LEAST_KEPT_PROMPTS = 10


def measure_unlearning(material: Material) -> Iterator[Rated]:
    """One task forgotten by the edit chosen on half of the prompts, scored on the other half; and every edit's price.

    Raises:
        StageError: `evaluate.unlearn` names no task.
    """
    target = _target(material)
    if target is not None:
        yield from _Unlearning(target, material).ratings()


def _target(material: Material) -> Task | None:
    wanted = material.settings.unlearn
    if wanted is not None:
        named = next((task for task in material.tasks if task.name == wanted), None)
        if named is None:
            names = ", ".join(task.name for task in material.tasks) or "none"
            raise StageError(f"evaluate.unlearn: no task {wanted}; there are: {names}")
        return named if len(material.tasks) > 1 else None
    for task in material.tasks if len(material.tasks) > 1 else ():
        known = _right(material, _prompts(material, task, material.settings.task_prompts), None).mean()
        if known >= _chance(task, material.tasks) + _WELL:
            return task
    return None


@dataclass(frozen=True)
class _Half:
    """Prompts of one half, those of the target and others."""

    prompts: list[Prompted]
    is_target: Bools
    clean: Bools


class _Unlearning:
    def __init__(self, target: Task, material: Material) -> None:
        self._material, self._target = material, target
        most = material.settings.task_prompts
        few = max(_LEAST_KEPT_PROMPTS, most // max(1, len(material.tasks) - 1))
        prompts, is_target = [], []
        for task in material.tasks:
            own = _prompts(material, task, most if task is target else few)
            prompts += own
            is_target += [task is target] * len(own)
        chosen = words(material.seed, Use.UNLEARNED_PROMPTS, np.arange(len(prompts))) % 2 == 0
        self._chance = _chance(target, material.tasks)
        self._halves = []
        for half in (chosen, ~chosen):
            mine = [prompt for prompt, here in zip(prompts, half, strict=True) if here]
            self._halves.append(_Half(mine, np.array(is_target)[half], _right(material, mine, None)))
        self._rows = _last_rows(material, self._halves[0].prompts)

    def ratings(self) -> Iterator[Rated]:
        forgotten: dict[str, Statistic] = {}
        kept: dict[str, Statistic] = {}
        sizes: dict[str, Statistic] = {}
        prices: dict[int, tuple[dict[str, Statistic], dict[str, Statistic]]] = {size: ({}, {}) for size in SIZES}
        for name in (*(coder.name for coder in self._material.coders), "probe"):
            coder, ranked = self._ranked(name)
            options = [size for size in SIZES if size <= len(ranked)]
            right = [self._tried(coder, ranked[:size]) for size in options]
            chosen = choose_edit(_accuracies(self._halves[0], [first for first, _ in right]))
            edited = self._halves[1].clean if chosen is None else right[chosen][1]
            forgotten[name] = partial(self._forgotten, edited)
            kept[name] = partial(self._kept, edited)
            sizes[name] = constant(0.0 if chosen is None else float(options[chosen]))
            for size, (_, second) in zip(options, right, strict=True):
                prices[size][0][name] = partial(self._accuracy, second)
                prices[size][1][name] = partial(self._kept, second)
        known = partial(self._accuracy, self._halves[1].clean)
        task = self._target.name
        yield self._rated(f"{task} forgotten", forgotten, "share of what was known above chance", "0: no edit")
        yield self._rated(f"kept while {task} is forgotten", kept, "share of right answers", "1: no edit")
        yield self._rated(f"latents removed for {task}", sizes, "latents", "")
        yield self._rated(
            f"{task}: no edit",
            {"dictionary": known},
            "accuracy",
            f"{self._chance:.3f}: the other tasks' commonest answer",
        )
        for size, (target, others) in prices.items():
            yield self._rated(
                f"{task}: {size} removed", target, "accuracy", f"{self._chance:.3f}: the other tasks' commonest answer"
            )
            yield self._rated(f"kept: {size} removed", others, "share of right answers", "1: no edit")

    def _ranked(self, name: str) -> tuple[Coder, Int64]:
        """Latents by how much more they fire where the target's answer begins than where others' do."""
        is_target = self._halves[0].is_target
        if name == "probe":
            mean = self._rows.mean(axis=0, dtype=np.float64)
            return along(name, span(fit_probe(self._rows, is_target).direction[None]), mean), np.zeros(
                1, dtype=np.int64
            )
        coder = next(coder for coder in self._material.coders if coder.name == name)
        gap = class_gap(coder.encode(self._rows), is_target)
        return coder, np.argsort(-(gap if coder.is_sparse else np.abs(gap)), kind="stable")

    def _tried(self, coder: Coder, latents: Int64) -> tuple[Bools, Bools]:
        """Right answers on both halves with these latents removed at every token."""
        edit = removing(coder, latents)
        first, second = (_right(self._material, half.prompts, edit) for half in self._halves)
        return first, second

    def _accuracy(self, right: Bools, weights: Float64) -> Float64:
        mine = self._halves[1].is_target
        return ratio(weights @ (mine & right).astype(np.float64), weights @ mine.astype(np.float64))

    def _forgotten(self, right: Bools, weights: Float64) -> Float64:
        clean = self._accuracy(self._halves[1].clean, weights)
        return unlearned(clean, self._accuracy(right, weights), self._chance)

    def _kept(self, right: Bools, weights: Float64) -> Float64:
        other = ~self._halves[1].is_target
        return ratio(
            weights @ (other & right).astype(np.float64), weights @ (other & self._halves[1].clean).astype(np.float64)
        )

    def _rated(self, name: str, statistics: dict[str, Statistic], unit: str, baseline: str) -> Rated:
        n = len(self._halves[1].prompts)
        definition = (
            f"latents that fire most where the answer of {self._target.name} begins are removed at every token; of "
            f"{', '.join(str(size) for size in SIZES)} latents the number that forgets most while {LEAST_KEPT} of the other "
            "tasks' right answers are kept, chosen on one half of the prompts and scored on the other; an answer is right "
            "when each of its tokens is the likeliest"
        )
        masks = Masks(replaced="every token of prompt and answer; not BOS", scored="the tokens of the answer")
        about = Unit(name, unit, "prompts", masks, baseline, definition, "the model did not know it before")
        return rated(about, np.arange(n), n, statistics, self._material.seed)


def _accuracies(half: _Half, right: list[Bools]) -> Tried:
    def shares(hits: Bools) -> tuple[float, float]:
        return float(hits[half.is_target].mean()), float(hits[~half.is_target].mean())

    target, kept = zip(*(shares(each) for each in right), strict=True)
    return Tried(*shares(half.clean), np.array(target), np.array(kept))


def _prompts(material: Material, task: Task, most: int) -> list[Prompted]:
    few = Task(task.name, task.prompts[:most], task.answers[:most])
    return prompted(material.model, few, material.corpus.has_bos)


def _chance(target: Task, tasks: Sequence[Task]) -> float:
    """What saying the commonest answer of the other tasks would score.

    Not the target's own commonest answer: where it is always the same (a backdoor's), to say it is all there is to know.
    """
    others = Counter(answer for task in tasks if task is not target for answer in task.answers)
    return float(np.mean([answer == others.most_common(1)[0][0] for answer in target.answers]))


def _right(material: Material, prompts: list[Prompted], edit: RowEdit | None) -> Bools:
    """Which prompts are answered rightly, in the order given."""
    right = []
    first = int(material.corpus.has_bos)
    for batch in batched(prompts, material.settings.batch_tokens):
        tokens, is_text, is_answer = padded(material.model, batch, first)
        edits: list[Edit] = []
        if edit is not None:
            places = np.zeros(int(is_text.sum()), dtype=np.int64)
            edits = [replacing(material.dictionary.hookpoint, is_text, on_tensors(edit, places))]
        right.append(all_likeliest(material.model.logits(tokens, edits), tokens, is_answer, "unlearning").numpy())
    return _as_given(prompts, np.concatenate(right))


def _last_rows(material: Material, prompts: list[Prompted]) -> Float32:
    """The row at the last token of each prompt, which predicts the answer's first."""
    rows = []
    hookpoint = material.dictionary.hookpoint
    for batch in batched(prompts, material.settings.batch_tokens):
        tokens, _, is_answer = padded(material.model, batch, int(material.corpus.has_bos))
        last = is_answer.int().argmax(1) - 1
        read = material.model.read(tokens, [hookpoint])[hookpoint].float().cpu()
        rows.append(read[np.arange(len(batch)), last.numpy()].numpy())
    return _as_given(prompts, np.concatenate(rows))


def _as_given(prompts: list[Prompted], values: NDArray[Any]) -> NDArray[Any]:
    """Values of `batched` prompts, longest first, in the order in which the prompts were given."""
    order = np.argsort([-len(prompt.tokens) for prompt in prompts], kind="stable")
    return np.asarray(values[np.argsort(order)])
