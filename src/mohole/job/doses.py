"""A sweep of strengths in a run: what is swept, on which prompts, and the artifact that is left at RUN/doses/NAME.

RUN/doses/resid_post.1-651/         of one latent, in times its maximum
RUN/doses/variant-golden-gate/      of a variant, in times what it says; its range is put into the variant, too
RUN/doses/asked-1f0c9a2b/           of interventions as they were asked for
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from mohole import artifact
from mohole.act import (
    DOSES,
    STRENGTHS,
    Bounds,
    Clamp,
    Concept,
    Direction,
    DoseResponse,
    Intervention,
    Latent,
    Plan,
    Sources,
    Trial,
    as_json,
    digests_of,
    filled_in,
    keep_range,
    latents_of,
    make_plan,
    measure_dose,
    open_variant,
    read_dose,
    write_dose,
)
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus, Task
from mohole.errors import ConfigError, StageError
from mohole.job.prompts import other_texts, possible_prompts
from mohole.job.workshop import planted_tasks
from mohole.model import LanguageModel
from mohole.report.dose import write_dose_page
from mohole.search.run import SearchedRun

PAGE_FILE = "dose.html"
_TASK_PROMPTS = 24
"""Of each task."""
_MOST_WORDS = 8
_HALF = 0.5


@dataclass(frozen=True)
class Subject:
    """What is swept."""

    name: str
    """Of its folder."""
    of: str
    label: str
    interventions: tuple[Intervention, ...]
    """At 1 times their strength."""
    unit: str
    sources: Sources
    variant: str | None = None


@dataclass(frozen=True)
class Asked:
    """How it is swept. None: what the run gives."""

    strengths: tuple[float, ...] = STRENGTHS
    prompts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    n_samples: int = 2
    max_new_tokens: int = 24
    temperature: float = 1.0
    seed: int = 0
    bounds: Bounds = field(default_factory=Bounds)


def latent_subject(run: Path, clamp: Clamp) -> Subject:
    """One latent, held at so many times its maximum.

    Args:
        clamp: at once its maximum; its dictionary may be left open where there is only one.

    Raises:
        ArtifactError, ConfigError: no such dictionary or latent.
    """
    sources = Sources.of_run(run)
    named = filled_in(clamp, sources)
    sources.maximum(Latent(named.latent, named.hookpoint))
    place = next(place for place in SearchedRun.open(run).places if place.name == named.hookpoint)
    label = place.label(named.latent)
    return Subject(
        f"{named.hookpoint}-{named.latent}{_suffix(named)}",
        f"{named.hookpoint}/{named.latent}",
        "" if label is None else label.text,
        (named,),
        "times its maximum",
        sources,
    )


def _suffix(clamp: Clamp) -> str:
    """Nothing for one that acts everywhere: others lie beside it."""
    if clamp == Clamp(clamp.latent, clamp.times_max, hookpoint=clamp.hookpoint):
        return ""
    return f"-{artifact.digest_of(as_json([clamp]))[:8]}"


def variant_subject(run: Path, name: str) -> Subject:
    """A variant as it was saved. Errors as `open_variant`."""
    variant = open_variant(run, name)
    sources = Sources.of_run(run, variant.dictionaries) if variant.needs else Sources()
    return Subject(f"variant-{name}", f"variant {name}", "", variant.interventions, "times what it says", sources, name)


def asked_subject(run: Path, interventions: Sequence[Intervention], directions: Sequence[Direction]) -> Subject:
    """Interventions as they were asked for.

    Raises:
        ConfigError: none, or they name what is not there.
    """
    if not interventions:
        raise ConfigError(f"sweep {run}: of what? name a latent or a variant, or give --clamp, --add or --scale")
    sources = Sources.of_run(run, directions=directions)
    said = tuple(filled_in(each, sources) for each in interventions)
    name = f"asked-{artifact.digest_of(as_json(said))[:8]}"
    of = " and ".join(_in_words(each) for each in interventions)
    return Subject(name, of, "", said, "times what was asked for", sources)


def _in_words(each: Intervention) -> str:
    """What is done to what: clamp 651, add calm."""
    source = getattr(each, "of", each)
    what = getattr(source, "name", None) or getattr(source, "latent", None) or "a vector"
    return f"{each.kind} {what}"


def sweep_strengths(
    run: Path, subject: Subject, model: LanguageModel, asked: Asked, *, replace_it: bool = False
) -> tuple[Path, DoseResponse, bool]:
    """Sweep it, unless that was done before with the same settings. Returns the artifact, what it holds, and was it made now.

    Raises:
        ArtifactError: another sweep of it is there, and `replace_it` is false. StageError: no text that is held out. Else as
            `measure_dose`.
    """
    corpus = Corpus.open(run / "corpus", verify=False)
    trial = _trial(model, corpus, asked)
    concept = _concept(model, corpus, run, subject, asked.words)
    out = run / DOSES / subject.name
    inputs = _inputs(run, subject, asked, trial, concept)
    made = not artifact.is_finished(out, inputs)
    if made:
        with artifact.create(out, inputs, replace=replace_it) as draft:
            dose = measure_dose(
                model, subject.sources, subject.interventions, concept, trial, strengths=asked.strengths,
                bounds=asked.bounds, of=subject.of, label=subject.label, unit=subject.unit,
            )  # fmt: skip
            write_dose(draft, dose)
            write_dose_page(draft / PAGE_FILE, dose)
    dose = read_dose(out)
    if subject.variant is not None:
        keep_range(run, subject.variant, dose.usable)
    return out, dose, made


def _inputs(run: Path, subject: Subject, asked: Asked, trial: Trial, concept: Concept) -> artifact.Inputs:
    settings = {name: value for name, value in asdict(asked).items() if name not in ("seed", "words")}
    return artifact.Inputs(
        kind="dose",
        config={
            "of": subject.of,
            "interventions": as_json(subject.interventions),
            **settings,
            "strengths": list(asked.strengths),
            "prompts": list(trial.prompts),
            "words": sorted(concept.words),
            "effect": concept.effect,
        },
        seed=asked.seed,
        parents=digests_of(subject.interventions, subject.sources)
        | {"corpus": artifact.read_manifest(run / "corpus").digest},
    )


def _trial(model: LanguageModel, corpus: Corpus, asked: Asked) -> Trial:
    is_planted = corpus.manifest.inputs.config.get("corpus", {}).get("kind") == "planted"
    texts = tuple(text for text in other_texts(corpus, model) if text.shape[1] > 2)
    if not texts:
        raise StageError(f"{corpus.path}: no held-out text of two tokens, on which the cost of steering could be seen")
    return Trial(
        prompts=asked.prompts or possible_prompts(corpus, is_planted=is_planted),
        texts=texts,
        tasks=tuple(
            Task(task.name, task.prompts[:_TASK_PROMPTS], task.answers[:_TASK_PROMPTS]) for task in planted_tasks()
        )
        if is_planted
        else (),
        n_samples=asked.n_samples,
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
    )


def _concept(model: LanguageModel, corpus: Corpus, run: Path, subject: Subject, words: Sequence[str]) -> Concept:
    latents = latents_of(subject.interventions)
    if words:
        said = frozenset(token for word in words for text in (word, f" {word}") for token in _tokens(model, text))
        return Concept(latents, said, f"the tokens of {', '.join(words)}", effect="words")
    if latents:
        own = frozenset(token for latent in latents for token in _strongest(run, corpus, latent))
        return Concept(latents, own, "where the latent has half of its activation on the corpus")
    plan = make_plan(model, subject.interventions, subject.sources)
    return Concept((), _promoted(model, corpus, plan), "what the direction raises most, by the unembedding")


def _tokens(model: LanguageModel, text: str) -> list[int]:
    return [token for token in model.tokenizer.encode(text) if model.tokenizer.piece(token).strip()]


def _strongest(run: Path, corpus: Corpus, latent: Latent) -> list[int]:
    """The fewest tokens that have half of a latent's summed activation; none without a catalogue."""
    assert latent.hookpoint is not None
    folder = run / latent.hookpoint / "catalogue"
    if not (folder / artifact.MANIFEST).is_file():
        return []
    entries = Catalogue.open(folder).entries(latent.latent)
    mass: Counter[int] = Counter()
    for token, value in zip(corpus.tokens[entries.token].tolist(), entries.value.tolist(), strict=True):
        mass[token] += value
    kept: list[int] = []
    for token, _ in mass.most_common(_MOST_WORDS):
        if sum(mass[one] for one in kept) >= _HALF * mass.total():
            break
        kept.append(token)
    return kept


def _promoted(model: LanguageModel, corpus: Corpus, plan: Plan) -> frozenset[int]:
    """The tokens of the corpus whose logits the last addition raises most."""
    added = [term for term in plan.terms if term.constant and len(term.along) == model.d_model]
    if not added:
        raise ConfigError("sweep: nothing says when steering has worked; give a word of the concept, --word TEXT")
    seen = torch.from_numpy(corpus.seen)
    logits = model.unembed(added[-1].along * (1.0 if added[-1].constant > 0 else -1.0)).float().cpu()[seen]
    return frozenset(seen[logits.topk(min(_MOST_WORDS, len(seen))).indices].tolist())
