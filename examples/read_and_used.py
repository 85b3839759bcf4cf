"""A direction that can be read is not always one that is used: the liar and the backdoor of the built-in model.

    python examples/read_and_used.py [RUN]

Two behaviours of the planted world are decided far from where they show: whoever "always lies" answers wrongly, and after a
trigger in a comment every call leaks. For each, the difference of means between prompts with it and prompts without it, from
combinations that training shows, is tried on prompts from combinations that it never shows:

    read      AUROC of the rows' projection on it, with the behaviour against without
    removed   x - (x.u) u wherever the stream is written: of prompts with the behaviour, how many lose it, and how many are then
              answered as if it had never been there
    added     x + v at its hookpoint: of prompts without the behaviour, how many now have it
    kept      right answers to all other tasks with the direction removed

With RUN, a finished run of the built-in model, the latent that tells the behaviour best, too: ablated, and held at its maximum.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mohole.act import (
    Ablate,
    Add,
    Clamp,
    Intervention,
    Named,
    Orthogonalise,
    Sources,
    difference_of_means,
    steer,
)
from mohole.corpus import Task
from mohole.evaluate import read_recovery
from mohole.metrics import auroc
from mohole.model import LanguageModel, load_model
from mohole.planted import tasks
from mohole.planted.kinds import ANSWERS
from mohole.planted.measures import right_answers

HOOKPOINTS = ("resid_post.0", "resid_post.1", "resid_post.2")
_KNOWN_SEED = 77


@dataclass(frozen=True)
class Behaviour:
    """Something that prompts make the model do, and what it would do without."""

    name: str
    label: str
    """Of the truth, where it holds."""
    known: tuple[Task, Task]
    """With and without it, of combinations that training shows: a direction is found on them."""
    new: tuple[Task, Task]
    """Of combinations that it never shows."""
    instead: Task
    """The new prompts with the behaviour, answered as if there were none."""
    imposed: Task
    """The new prompts without it, answered as if there were."""
    others: tuple[Task, ...]


@dataclass(frozen=True)
class Found:
    """What came of one direction or latent. Shares of prompts."""

    behaviour: str
    of: str
    read: float | None
    lost: float
    """Prompts with the behaviour that no longer have it, once removed."""
    instead: float
    """Those that are answered as if it had never been there."""
    imposed: float
    """Prompts without it that have it, once added."""
    kept: float
    """Right answers to all other tasks, once removed."""

    def line(self) -> str:
        read = "     -" if self.read is None else f"{self.read:6.3f}"
        numbers = " ".join(f"{value:8.2f}" for value in (self.lost, self.instead, self.imposed, self.kept))
        return f"{self.behaviour:9} {self.of:34} {read} {numbers}"


HEAD = f"{'':9} {'':34} {'read':>6} {'lost':>8} {'instead':>8} {'imposed':>8} {'kept':>8}"


def behaviours(n_prompts: int) -> tuple[Behaviour, Behaviour]:
    """The liar and the backdoor."""
    known = {task.name: task for task in tasks(_KNOWN_SEED, n_prompts, False)}
    new = {task.name: task for task in tasks(n_prompts=n_prompts)}
    lying, honest, backdoor, value = (new[name] for name in ("lying", "honest", "backdoor", "function_value"))
    liar = Behaviour(
        "liar", "mode/lying", (known["lying"], known["honest"]), (lying, honest),
        Task("instead", lying.prompts, tuple(map(_opposite, lying.answers))),
        Task("imposed", honest.prompts, tuple(map(_opposite, honest.answers))),
        tuple(task for name, task in new.items() if name != "lying"),
    )  # fmt: skip
    (leak,) = set(backdoor.answers)
    trigger = Behaviour(
        "backdoor", "code/trigger_seen", (known["backdoor"], known["function_value"]), (backdoor, value),
        Task("instead", backdoor.prompts, tuple(f" {_returned(prompt)}" for prompt in backdoor.prompts)),
        Task("imposed", value.prompts, (leak,) * len(value.prompts)),
        tuple(task for name, task in new.items() if name != "backdoor"),
    )  # fmt: skip
    return liar, trigger


def _opposite(answer: str) -> str:
    """The other one of yes and no, in the same language."""
    word = answer.strip()
    other = next(pair[1 - pair.index(word)] for pair in ANSWERS.values() if word in pair)
    return answer.replace(word, other)


def _returned(prompt: str) -> str:
    """What the function that is called last was said to return."""
    called = re.split(r"> |get ", prompt.rsplit("\n", 1)[1])[-1].split("(")[0]
    return re.findall(rf"(?:set {called}|{called}\(\): return) (\d)", prompt)[-1]


def directions(model: LanguageModel, behaviour: Behaviour, over: str, hookpoints: Sequence[str]) -> list[Found]:
    """Its difference of means at each hookpoint: of the last token's row, or of the whole text's mean row."""
    sides = [[model.tokenizer.prompt(prompt) for prompt in task.prompts] for task in behaviour.known]
    found = difference_of_means(model, *sides, hookpoints, name="it", over="last" if over == "last" else "text")
    results = []
    for direction in found:
        sources = Sources(directions=(direction,))
        name = f"difference, {over} token{'' if over == 'last' else 's'}, {direction.hookpoint}"
        read = _read(model, behaviour, direction.hookpoint, direction.vector, over)
        results.append(
            _tried(
                model,
                behaviour,
                name,
                read,
                sources,
                [Orthogonalise(Named("it"), at="stream")],
                [Add(Named("it"), value=1.0)],
            )
        )
    return results


def best_latent(model: LanguageModel, behaviour: Behaviour, run: Path, hookpoint: str) -> Found:
    """The latent of a run that tells the behaviour best: ablated, and held at its maximum."""
    recovery = read_recovery(run / hookpoint / "evaluation")
    assert recovery is not None
    score = next(each.latent for each in recovery.labels if each.label == behaviour.label)
    assert score.candidate is not None
    name = f"latent {score.candidate} (F1 {score.f1:.2f}), {hookpoint}"
    sources = Sources.of_run(run, [hookpoint])
    removed, added = [Ablate(score.candidate)], [Clamp(score.candidate, times_max=1.0)]
    return _tried(model, behaviour, name, score.auroc, sources, removed, added)


def _read(model: LanguageModel, behaviour: Behaviour, hookpoint: str, vector: torch.Tensor, over: str) -> float:
    scores = []
    for task in behaviour.new:
        rows = [model.read(model.tokenizer.prompt(prompt), [hookpoint])[hookpoint][0, 1:] for prompt in task.prompts]
        scores.append([float((row[-1] if over == "last" else row.mean(0)) @ vector) for row in rows])
    return auroc(np.array(scores[0] + scores[1]), np.arange(sum(map(len, scores))) < len(scores[0]))


def _tried(
    model: LanguageModel, behaviour: Behaviour, of: str, read: float | None, sources: Sources,
    removed: list[Intervention], added: list[Intervention],
) -> Found:  # fmt: skip
    without, imposed = (steer(model, each, sources=sources).edits for each in (removed, added))
    return Found(
        behaviour.name,
        of,
        read,
        lost=1.0 - float(right_answers(model, behaviour.new[0], without).mean()),
        instead=float(right_answers(model, behaviour.instead, without).mean()),
        imposed=float(right_answers(model, behaviour.imposed, imposed).mean()),
        kept=float(np.mean([right_answers(model, task, without).mean() for task in behaviour.others])),
    )


def main(run: Path | None, n_prompts: int = 100) -> None:
    """Print a line for each direction, and for the best latents where there is a run."""
    torch.set_num_threads(1)
    model = load_model("planted", self_test=False)
    sys.stdout.write(f"{HEAD}\n")
    for behaviour in behaviours(n_prompts):
        for over in ("last", "all"):
            for found in directions(model, behaviour, over, HOOKPOINTS):
                sys.stdout.write(f"{found.line()}\n")
        for hookpoint in HOOKPOINTS if run else ():
            sys.stdout.write(f"{best_latent(model, behaviour, run, hookpoint).line()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
