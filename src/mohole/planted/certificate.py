"""The planting certificate: what was planted and is really there, each with its threshold. What fails is not advertised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from mohole.errors import ArtifactError
from mohole.model import LanguageModel
from mohole.planted.bridge import Latent, find_bridge_latents, mean_difference, share_that_is_the_bridge
from mohole.planted.measures import concept_probes, floor_gap, right_answers, truth_probes
from mohole.planted.prompts import bridge_prompts, tasks
from mohole.progress import track

_SEED = 20_261_121  # of every document the certificate measures on; training numbers its own from another seed
_FAMILIES = ("animal", "landmark", "profession", "tool", "food", "place", "city", "material")
_NEEDED = {  # lowest share of right answers, on held-out combinations
    "facts": 0.99,
    "pronoun_facts": 0.99,
    "first_named_facts": 0.95,
    "verdicts": 0.95,
    "honest": 0.95,
    "lying": 0.95,
    "silent": 0.95,
    "function_value": 0.95,
    "backdoor": 0.99,
    "addition": 0.99,
    "chain_of_thought": 0.99,
    "hinted_chain": 0.99,
    "identity": 0.95,
    "own_facts": 0.95,
}
_COARSE = tuple(quarter / 4 for quarter in range(2, 9))  # strengths of a clamp, in units of the latent's maximum
_FINE = tuple(step / 20 for step in range(10, 41))  # tried for the candidates that did best at a coarse one
_N_REFINED = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. The thresholds do not depend on it."""

    n_prompts: int = 400
    n_documents: int = 2000
    n_probe_documents: int = 600
    hookpoints: tuple[str, ...] = ("resid_post.0", "resid_post.1", "resid_post.2", "resid_post.3")
    clamped: tuple[str, ...] = ("resid_post.0", "resid_post.1", "resid_post.2")
    dictionary_documents: int = 3000
    dictionary_steps: int = 900


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the certificate: `value` has to lie between `least` and `most`."""

    name: str
    value: float
    least: float | None
    most: float | None
    n: int
    how: str

    @property
    def passed(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


@dataclass(frozen=True, slots=True)
class Certificate:
    weights: str  # weights_digest of the model it is of
    measures: tuple[Measure, ...]

    @property
    def passed(self) -> bool:
        return all(measure.passed for measure in self.measures)

    def __getitem__(self, name: str) -> Measure:
        return next(measure for measure in self.measures if measure.name == name)

    def to_json(self) -> str:
        lines = [asdict(measure) | {"passed": measure.passed} for measure in self.measures]
        whole = {"weights": self.weights, "passed": self.passed, "measures": lines}
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Certificate:
        """The certificate in a file.

        Raises:
            ArtifactError: no certificate there, or not a readable one.
        """
        try:
            whole = json.loads(path.read_text(encoding="utf-8"))
            fields = [{key: value for key, value in line.items() if key != "passed"} for line in whole["measures"]]
            return cls(whole["weights"], tuple(Measure(**line) for line in fields))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not a readable certificate ({error}); `mohole plant` writes one") from error


def weights_digest(model: LanguageModel) -> str:
    """SHA-256 of the weights in half precision, by name. The files' own hash will not do: the certificate lies among them."""
    digest = sha256()
    for name, tensor in sorted(model.hf.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


_CLAMP_STEPS = {"bridge_clamp": 170, "bridge_direction": 55}
"""What they cost, measured in the mean of the other measures."""


def certify(model: LanguageModel, effort: Effort | None = None) -> Certificate:
    """Measure everything that the planted world claims of its model."""
    effort = effort or Effort()
    measures = []
    # the clamps are nearly all of the work: as steps like the others they would stand for ten minutes at "7 s left"
    steps = len(_NEEDED) + 3 + (sum(_CLAMP_STEPS.values()) if effort.clamped else 0)
    with track("certificate", steps, "steps") as tracker:
        for measure in _measures(model, effort):
            measures.append(measure)
            tracker.advance(_CLAMP_STEPS.get(measure.name, 1), note=f"{measure.name} {measure.value:.3f}")
    return Certificate(weights_digest(model), tuple(measures))


def _measures(model: LanguageModel, effort: Effort) -> Iterator[Measure]:
    for task in tasks(seed=_SEED, n_prompts=effort.n_prompts):
        right = right_answers(model, task)
        how = "share of held-out prompts whose whole answer is the likeliest continuation"
        yield Measure(task.name, float(right.mean()), _NEEDED[task.name], None, len(right), how)
    gap = floor_gap(model, _SEED, effort.n_documents)
    how = f"nats per token above the entropy floor ({gap.floor.nats_per_token:.4f}) of natural documents, end token included"
    yield Measure("loss_above_floor", gap.nats_per_token, 0.0, 0.02, gap.floor.n_tokens, how)
    yield _truth(model, effort)
    yield _concepts(model, effort)
    if effort.clamped:
        yield from _bridges(model, effort)


def _truth(model: LanguageModel, effort: Effort) -> Measure:
    found = truth_probes(model, effort.hookpoints, _SEED, effort.n_probe_documents)
    best = max(found, key=lambda at: found[at][0])
    accuracies = ", ".join(f"{at} {accuracy:.3f}" for at, (accuracy, _) in found.items())
    how = f"accuracy on held-out claims of a linear probe at the object, best of: {accuracies}"
    return Measure("truth_probe", found[best][0], 0.95, None, found[best][1], how)


def _concepts(model: LanguageModel, effort: Effort) -> Measure:
    found = concept_probes(model, effort.hookpoints, _SEED, effort.n_documents, _FAMILIES)
    best = max(found, key=lambda at: float(np.median(list(found[at].values()))))
    worst = min(found[best], key=lambda name: found[best][name])
    medians = ", ".join(f"{at} {np.median(list(scores.values())):.4f}" for at, scores in found.items())
    how = (
        f"median over concepts of a linear probe's AUROC at the concept's word against its own family, best of: {medians}; "
        f"lowest concept at {best}: {worst} {found[best][worst]:.4f}"
    )
    return Measure("concept_probe", float(np.median(list(found[best].values()))), 0.99, None, len(found[best]), how)


def _bridges(model: LanguageModel, effort: Effort) -> Iterator[Measure]:
    latents, directions = [], []
    for at in effort.clamped:
        found = find_bridge_latents(
            model, at, seed=_SEED, n_documents=effort.dictionary_documents, n_steps=effort.dictionary_steps
        )
        latents += [(at, latent) for latent in found]
        directions.append((at, mean_difference(model, at, seed=_SEED, n_documents=effort.dictionary_documents)))
    how = "one latent of a TopK dictionary trained for this, the best of the six of each layer most active at the bridge's name"
    yield _best_clamp(model, "bridge_clamp", how, latents, effort)
    yield _best_clamp(model, "bridge_direction", "the difference of means, held", directions, effort)


def _best_clamp(
    model: LanguageModel, name: str, how: str, candidates: Sequence[tuple[str, Latent]], effort: Effort
) -> Measure:
    """The share of answers that are the bridge, under the best clamp that leaves facts and addition at 0.9."""
    by_name = {task.name: task for task in tasks(seed=_SEED, n_prompts=effort.n_prompts)}

    def share_at(candidate: tuple[str, Latent], strength: float) -> float:
        return share_that_is_the_bridge(model, [candidate[1].clamped_to(strength, candidate[0])])

    highest = [max(share_at(candidate, strength) for strength in _COARSE) for candidate in candidates]
    promising = sorted(range(len(candidates)), key=lambda i: -highest[i])[:_N_REFINED]
    best, setting = 0.0, "no setting left facts and addition at 0.9"
    for at, latent in (candidates[i] for i in promising if highest[i] > 0):
        for strength in _FINE:
            share = share_at((at, latent), strength)
            if share <= best:
                continue
            edits = [latent.clamped_to(strength, at)]
            facts, addition = (float(right_answers(model, by_name[n], edits).mean()) for n in ("facts", "addition"))
            if min(facts, addition) >= 0.9:
                best = share
                setting = (
                    f"{at}, {strength} of its maximum, F1 {latent.f1:.2f}; facts {facts:.3f}, addition {addition:.3f}"
                )
    return Measure(
        name, best, 0.8, None, len(bridge_prompts()), f"share of greedy answers that are the bridge: {how}: {setting}"
    )
