"""Dose and response: what steering does, and what it costs, at each of several strengths. Measures; writes and draws nothing.

    effect   of what the steered model wrote: the share of tokens at which the feature is active when the *unsteered* model
             reads the text (a clamp would make it active everywhere, whatever is written), and that are words of its concept
    cost     how strange the written text is to the unsteered model, how much it repeats, how far predictions on other text
             are moved, how many right answers to other tasks are left

Strengths stand in one batch, a plan for each row. Every text is drawn by the same numbers at each strength, so that what differs
is the strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from mohole.act.dose_rows import OtherText, Reader, Written, right_by_task, write_texts
from mohole.act.interventions import Ablate, Add, Clamp, Intervention, Latent, Scale
from mohole.act.parsing import as_json
from mohole.act.sources import Sources
from mohole.act.strength import at_strength
from mohole.act.terms import NOTHING, make_plan
from mohole.act.usable import Bounds, Evidence, UsableRange, longest_run
from mohole.corpus import Task
from mohole.errors import ConfigError
from mohole.metrics import DocumentSums, Masks, Measure, measured, perplexity, repeated_ngrams, wilson
from mohole.metrics.measure import Statistic
from mohole.metrics.written import NGRAM
from mohole.model import LanguageModel
from mohole.progress import track

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.125, 1.25, 1.375, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
_UNSTEERED = "the same prompts and draws, unsteered"


@dataclass(frozen=True)
class Trial:
    """What strengths are tried on."""

    prompts: tuple[str, ...]
    """To be continued."""
    texts: tuple[Int[Tensor, "1 _"], ...]
    """Other text, begin-of-text token included. Its first half counts as prompt, predictions of its second are compared."""
    tasks: tuple[Task, ...] = ()
    n_samples: int = 2
    """Texts for each prompt."""
    max_new_tokens: int = 24
    temperature: float = 1.0
    seed: int = 0
    batch_rows: int = 128

    def __post_init__(self) -> None:
        """Raises: ConfigError: nothing to continue, or no text of two tokens to predict."""
        if not self.prompts or not all(self.prompts):
            raise ConfigError("sweep: a prompt is needed, and none may be empty; give --prompt TEXT")
        if not self.texts or min(text.shape[1] for text in self.texts) < 3:
            raise ConfigError("sweep: other text of three tokens at least is needed, to see what steering does to it")
        if self.n_samples < 1 or self.max_new_tokens < 1:
            raise ConfigError(f"sweep: {self.n_samples} texts of {self.max_new_tokens} tokens; both must be 1 at least")


@dataclass(frozen=True)
class Concept:
    """What the effect is looked for by."""

    latents: tuple[Latent, ...]
    """Any of them active at a token counts. None: only words do."""
    words: frozenset[int]
    """Token ids. None: only activity does."""
    how: str
    """Where the words come from, for people."""
    effect: str = ""
    """Name of the measure that decides: active or words. Empty: active where there are latents."""

    def __post_init__(self) -> None:
        """Raises: ConfigError: nothing to look for."""
        if not self.latents and not self.words:
            raise ConfigError("sweep: nothing says when steering has worked; give a word of the concept, --word TEXT")
        if not self.effect:
            object.__setattr__(self, "effect", "active" if self.latents else "words")


@dataclass(frozen=True, slots=True)
class TaskRight:
    """Right answers to one task."""

    name: str
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What was found at one strength."""

    strength: float | None
    """In the sweep's unit. None: unsteered."""
    measures: dict[str, Measure]
    """active (where a latent is steered), words (where there are any), perplexity, repeated, kl, tasks (where there are any)."""
    tasks: tuple[TaskRight, ...]
    texts: tuple[str, ...]
    """What was written, prompt after prompt, all samples of one together."""
    broken: tuple[str, ...]
    """What of the rule does not hold here. Empty: usable. Of the unsteered model: nothing is said."""


@dataclass(frozen=True, slots=True)
class DoseResponse:
    """A sweep of strengths and what came of it."""

    of: str
    """What was swept: a latent, a variant, a direction."""
    label: str
    interventions: tuple[dict[str, Any], ...]
    """As JSON, at 1 times their strength."""
    unit: str
    """Of strengths, in words: times its maximum, times as said."""
    latents: tuple[str, ...]
    words: tuple[str, ...]
    """As they stand in a text."""
    words_are: str
    effect: str
    """Which measure is the effect of the rule."""
    bounds: Bounds
    usable: UsableRange
    unsteered: Point
    points: tuple[Point, ...]
    """Strengths ascending."""
    prompts: tuple[str, ...]
    n_samples: int
    max_new_tokens: int
    temperature: float
    seed: int


def measure_dose(
    model: LanguageModel,
    sources: Sources,
    interventions: Sequence[Intervention],
    concept: Concept,
    trial: Trial,
    *,
    strengths: Sequence[float] = STRENGTHS,
    bounds: Bounds | None = None,
    of: str = "",
    label: str = "",
    unit: str = "times as said",
) -> DoseResponse:
    """Try interventions at several times their strength.

    Args:
        strengths: multiples of what the interventions say, in any order.

    Raises:
        ConfigError: no strength, one that is not finite, or as `at_strength` and `make_plan`. StageError: an edit that did not
            fire. NumericsError: a prediction that is no number.
    """
    ascending = sorted(set(strengths))
    if not ascending or not all(np.isfinite(ascending)):
        raise ConfigError(f"sweep: strengths {list(strengths)}; one at least, all of them finite numbers")
    bounds = bounds or Bounds()
    plans = [NOTHING, *(make_plan(model, at_strength(interventions, each), sources) for each in ascending)]
    reader = Reader(model, sources, concept.latents)
    with track(f"sweep {of}".strip(), len(plans) * (2 + bool(trial.tasks)), "strengths' measurements") as tracker:
        written = write_texts(model, plans, _prompts(model, trial), trial.batch_rows, _drawn(model, trial))
        reader.read(written, trial.batch_rows)
        tracker.advance(len(plans))
        other = OtherText(model, trial.texts).compare(plans, trial.batch_rows)
        tracker.advance(len(plans))
        rights = right_by_task(model, plans, trial.tasks, trial.batch_rows)
        if trial.tasks:
            tracker.advance(len(plans))
    found = [
        (_written_measures(texts, concept, trial) | _kl(sums, trial.seed) | _task_measure(right), _by_task(right))
        for texts, sums, right in zip(written, other, rights, strict=True)
    ]
    points = [
        Point(
            strength,
            measures,
            tasks,
            tuple(text.said for text in texts),
            () if strength is None else bounds.broken(measures, found[0][0], concept.effect),
        )
        for strength, (measures, tasks), texts in zip([None, *ascending], found, written, strict=True)
    ]
    pieces = model.tokenizer
    return DoseResponse(
        of=of,
        label=label,
        interventions=tuple(as_json(interventions)),
        unit=unit,
        latents=tuple(f"{each.hookpoint}/{each.latent}" for each in reader.latents),
        words=tuple(sorted(pieces.piece(token) for token in concept.words)),
        words_are=concept.how,
        effect=concept.effect,
        bounds=bounds,
        usable=_range(points, bounds, concept.effect, unit, trial),
        unsteered=points[0],
        points=tuple(points[1:]),
        prompts=trial.prompts,
        n_samples=trial.n_samples,
        max_new_tokens=trial.max_new_tokens,
        temperature=trial.temperature,
        seed=trial.seed,
    )


def latents_of(interventions: Sequence[Intervention]) -> tuple[Latent, ...]:
    """The latents that are acted on, each once."""
    found = []
    for each in interventions:
        match each:
            case Clamp() | Scale() | Ablate():
                found.append(Latent(each.latent, each.hookpoint))
            case Add(of=Latent() as of):
                found.append(of)
            case _:
                pass
    return tuple(dict.fromkeys(found))


def _prompts(model: LanguageModel, trial: Trial) -> list[Tensor]:
    return [model.tokenizer.prompt(text)[0] for text in trial.prompts for _ in range(trial.n_samples)]


def _drawn(model: LanguageModel, trial: Trial) -> dict[str, Any]:
    eos = model.tokenizer.eos_id
    return {
        "max_new_tokens": trial.max_new_tokens,
        "temperature": trial.temperature,
        "seed": trial.seed,
        "stop_tokens": [] if eos is None else [eos],
    }


_WRITTEN = ("tokens", "active", "words", "nats", "repeated", "ngrams")


def _written_measures(texts: Sequence[Written], concept: Concept, trial: Trial) -> dict[str, Measure]:
    sums = DocumentSums(_WRITTEN)
    for text in texts:
        repeated, ngrams = repeated_ngrams(text.tokens)
        n_words = sum(token in concept.words for token in text.tokens)
        sums.add(
            np.array([text.item // trial.n_samples]),
            np.array([[len(text.tokens), text.n_active, n_words, text.nats, repeated, ngrams]], dtype=np.float64),
            place=f"text {text.item}",
        )
    n = int(sums.total("tokens"))
    scored = "tokens that the model wrote; not the prompt, not an end-of-text token"
    own = _Maker(sums, trial.seed, Masks(replaced="as the interventions say, while writing", scored=scored))
    nats, tokens = sums.column("nats"), sums.column("tokens")
    measures = {
        "perplexity": own.measure(
            lambda weights: perplexity(weights @ nats, weights @ tokens),
            name="perplexity",
            unit="tokens",
            n=n,
            n_of="written tokens",
            definition="exp of the mean -ln p(written token | what stands before it), p of the model unsteered",
        ),
        "repeated": own.measure(
            sums.mean_of("repeated", "ngrams"),
            name="repeated",
            unit=f"share of {NGRAM}-grams",
            n=int(sums.total("ngrams")),
            n_of=f"{NGRAM}-grams of written tokens",
            definition=f"{NGRAM}-grams that stood in the same text before, of all",
        ),
    }
    if concept.words:
        measures["words"] = own.measure(
            sums.mean_of("words", "tokens"),
            name="words",
            unit="share of tokens",
            n=n,
            n_of="written tokens",
            definition=f"written tokens that are words of the concept: {concept.how}",
        )
    if concept.latents:
        measures["active"] = own.measure(
            sums.mean_of("active", "tokens"),
            name="active",
            unit="share of tokens",
            n=n,
            n_of="written tokens",
            definition="written tokens at which a steered latent is active when the unsteered model reads the text",
        )
    return measures


@dataclass(frozen=True)
class _Maker:
    """Measures of sums by prompt."""

    sums: DocumentSums
    seed: int
    masks: Masks

    def measure(self, statistic: Statistic, **said: Any) -> Measure:
        return measured(
            statistic, self.sums.documents, seed=self.seed, masks=self.masks, baseline=_UNSTEERED,
            undefined="nothing was written, or too little", **said,
        )  # fmt: skip


def _kl(sums: DocumentSums, seed: int) -> dict[str, Measure]:
    masks = Masks(
        replaced="as the interventions say; the first half of a text is its prompt",
        scored="predictions of the second half of each text",
    )
    found = measured(
        sums.mean_of("kl", "pairs"),
        sums.documents,
        seed=seed,
        name="kl",
        unit="nats per token",
        n=int(sums.total("pairs")),
        n_of="predictions",
        masks=masks,
        baseline="the model unsteered",
        definition="mean KL(unsteered || steered) of next-token predictions on other text",
    )
    return {"kl": found}


Right = dict[str, tuple[int, int]]


def _by_task(right: Right) -> tuple[TaskRight, ...]:
    return tuple(TaskRight(name, n, n_right / n, *wilson(n_right, n)) for name, (n_right, n) in right.items())


def _task_measure(right: Right) -> dict[str, Measure]:
    if not right:
        return {}
    n_right, n = (sum(counts) for counts in zip(*right.values(), strict=True))
    low, high = wilson(n_right, n)
    found = Measure(
        name="tasks",
        value=n_right / n,
        unit="share of prompts",
        low=low,
        high=high,
        n=n,
        n_of="prompts",
        n_documents=n,
        masks=Masks(replaced="as the interventions say; the answer is the response", scored="the answer's tokens"),
        baseline="the model unsteered",
        definition=f"prompts of {len(right)} tasks whose whole answer is the likeliest continuation; interval: Wilson",
    )
    return {"tasks": found}


def _range(points: Sequence[Point], bounds: Bounds, effect: str, unit: str, trial: Trial) -> UsableRange:
    run = longest_run([each.strength or 0.0 for each in points[1:]], [not each.broken for each in points[1:]])
    low, high = run or (None, None)
    return UsableRange(
        low=low,
        high=high,
        unit=unit,
        effect=effect,
        rule=bounds.rule(effect),
        n_prompts=len(trial.prompts),
        n_texts=len(trial.prompts) * trial.n_samples,
        evidence=tuple(_evidence(each, effect) for each in points),
    )


def _evidence(point: Point, effect: str) -> Evidence:
    own = point.measures[effect]
    value = {name: measure.value for name, measure in point.measures.items()}
    return Evidence(
        strength=point.strength,
        effect=own.value,
        effect_low=own.low,
        effect_high=own.high,
        perplexity=value["perplexity"],
        repeated=value["repeated"],
        kl=value["kl"],
        tasks=value.get("tasks"),
        broken=point.broken,
    )
