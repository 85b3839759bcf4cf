"""Dose and response: what steering does, and what it costs, at each of several strengths. Measures; writes and draws nothing.

    effect   of what the steered model wrote: the share of tokens at which the feature is active when the *unsteered* model
             reads the text (a clamp would make it active everywhere, whatever is written), and that are words of its concept
    cost     how strange the written text is to the unsteered model, how much it repeats, how far predictions on other text
             are moved, how many right answers to other tasks are left

Strengths stand in one batch, a plan for each row. Every text is drawn by the same numbers at each strength, so that what differs
is the strength.
"""

from collections.abc import Sequence

import numpy as np

from mohole.act.dose import Concept, DoseResponse, Point, Trial
from mohole.act.dose_measures import by_task, measures_of
from mohole.act.dose_rows import Judge, OtherText, right_by_task, write_texts
from mohole.act.interventions import Ablate, Add, Clamp, Intervention, Latent, Scale
from mohole.act.parsing import as_json
from mohole.act.planning import make_plan
from mohole.act.sources import Sources
from mohole.act.strength import at_strength
from mohole.act.terms import NOTHING
from mohole.act.usable import Bounds, Evidence, UsableRange, longest_run
from mohole.errors import ConfigError
from mohole.model import LanguageModel
from mohole.progress import track

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.125, 1.25, 1.375, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)


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
    judge = Judge(model, sources, concept.latents)
    with track(f"sweep {of}".strip(), len(plans) * (2 + bool(trial.tasks)), "strengths' measurements") as tracker:
        written = write_texts(model, plans, trial)
        judge.read(written, trial.batch_rows)
        tracker.advance(len(plans))
        other = OtherText(model, trial.texts).compare(plans, trial.batch_rows)
        tracker.advance(len(plans))
        rights = right_by_task(model, plans, trial.tasks, trial.batch_rows)
        if trial.tasks:
            tracker.advance(len(plans))
    points: list[Point] = []
    for strength, texts, sums, right in zip([None, *ascending], written, other, rights, strict=True):
        measures = measures_of(texts, sums, right, concept, trial)
        broken = () if strength is None else bounds.broken(measures, points[0].measures, concept.effect)
        points.append(Point(strength, measures, by_task(right), tuple(text.said for text in texts), broken))
    return DoseResponse(
        of=of,
        label=label,
        interventions=tuple(as_json(interventions)),
        unit=unit,
        latents=tuple(f"{each.hookpoint}/{each.latent}" for each in judge.latents),
        words=tuple(sorted(model.tokenizer.piece(token) for token in concept.words)),
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
