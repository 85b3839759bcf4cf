"""From a run's folder to its findings: opens every artifact, takes what will be shown, leaves the rest. Writes nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

import numpy as np

from mohole import artifact
from mohole.act import read_steering
from mohole.artifact import Manifest
from mohole.catalogue import Catalogue, Example, Feature
from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.corpus import Corpus
from mohole.dictionary.files import open_autoencoder
from mohole.errors import ArtifactError, HookpointError
from mohole.evaluate import Recovery, read_evaluation, read_recovery
from mohole.interpret import Label, Labels, unlabelled
from mohole.model.hookpoints import parse_hookpoint
from mohole.progress import track
from mohole.record import read_record
from mohole.report.findings import (
    ArtifactFacts,
    Band,
    Concept,
    FeatureCard,
    Findings,
    HookpointFindings,
    Snippet,
)

_CONCEPT_F1 = 0.7  # a latent that tells a concept from all other tokens worse than this is not that concept
_PARTS = ("dictionary", "evaluation", "catalogue", "labels")


def read_findings(run: Path | str, *, model: str = "the model", max_features: int = 400) -> Findings:
    """Gather what a finished run found.

    Args:
        model: what to call the model: artifacts know only its checksum.
        max_features: features of each hookpoint to take with their texts, the best labelled first.

    Raises:
        ArtifactError: an artifact is missing or damaged, or no hookpoint has been worked on.
    """
    run = Path(run)
    corpus = Corpus.open(run / "corpus")
    hookpoints = _hookpoints(run)
    with track("report", len(hookpoints) * max_features, "features") as tracker:
        places = [_read_hookpoint(run / name, corpus, max_features, tracker.advance) for name in hookpoints]
    steering = run / "steering"
    config = corpus.manifest.inputs.config
    return Findings(
        name=run.resolve().name,
        model=model,
        corpus=_describe(config.get("corpus", {})),
        n_documents=corpus.n_documents,
        n_tokens=corpus.n_tokens,
        context=corpus.context,
        held_out=float(corpus.held_out.mean()),
        seed=corpus.manifest.inputs.seed,
        code=corpus.manifest.code,
        hookpoints=tuple(places),
        firing_share=Labels.open(run / hookpoints[0] / "labels").firing_share,
        steering=read_steering(steering) if steering.is_dir() else None,
        artifacts=tuple(_artifacts(run, hookpoints)),
    )


def _hookpoints(run: Path) -> list[str]:
    """Folders of the run that hold a dictionary, in order of execution."""
    names = [place.parent.name for place in run.glob("*/dictionary") if (place / artifact.MANIFEST).is_file()]
    if not names:
        raise ArtifactError(f"{run}: no hookpoint with a dictionary in it; `mohole run RECIPE` makes one")
    try:
        points = {name: parse_hookpoint(name) for name in names}
    except HookpointError as error:
        raise ArtifactError(f"{run}: holds a dictionary that is not named by its hookpoint: {error}") from None
    return sorted(names, key=lambda name: points[name].execution)


def _describe(config: Mapping[str, object]) -> str:
    if config.get("kind") == "text":
        return Path(str(config.get("path"))).name
    return "the built-in world" if config.get("kind") == "planted" else "text"


def _artifacts(run: Path, hookpoints: list[str]) -> list[ArtifactFacts]:
    names = [
        "corpus",
        "activations",
        "shuffled",
        *(f"{place}/{part}" for place in hookpoints for part in _PARTS),
        "steering",
    ]
    found = [(name, artifact.read_manifest(run / name)) for name in names if (run / name / artifact.MANIFEST).is_file()]
    return [_facts(name, manifest) for name, manifest in found]


def _facts(name: str, manifest: Manifest) -> ArtifactFacts:
    return ArtifactFacts(name, manifest.kind, manifest.digest, manifest.code)


def _read_hookpoint(folder: Path, corpus: Corpus, max_features: int, advance: Callable[[], None]) -> HookpointFindings:
    dictionary = open_autoencoder(folder / "dictionary")
    artifact.open_artifact(folder / "evaluation", kind="evaluation")
    recovery = read_recovery(folder / "evaluation")
    catalogue, labels = Catalogue.open(folder / "catalogue"), Labels.open(folder / "labels")
    concepts = _concepts(recovery) if recovery else {}
    features = []
    for latent in _best(catalogue, labels, concepts, max_features):
        features.append(read_card(catalogue.feature(latent), labels.label(latent), concepts.get(latent), corpus))
        advance()
    return HookpointFindings(
        hookpoint=dictionary.hookpoint,
        n_latents=dictionary.n_latents,
        d_model=dictionary.d_model,
        nonlinearity=_in_words(dictionary.nonlinearity),
        n_tokens=catalogue.n_tokens,
        evaluation=read_evaluation(folder / "evaluation"),
        recovery=recovery,
        record=tuple(read_record(folder / "dictionary" / "record.jsonl")),
        features=tuple(features),
    )


def _concepts(recovery: Recovery) -> dict[int, Concept]:
    """For each latent that recovers a planted concept, the concept that it tells best."""
    languages = {result.label: result for result in recovery.multilingual.concepts}
    found: dict[int, Concept] = {}
    for result in sorted(recovery.labels, key=lambda result: result.f1_all_latent):
        latent = result.all_latent
        if result.f1_all_latent < _CONCEPT_F1:
            continue
        spread = languages.get(result.label)
        n_languages = spread.n_fired if spread and spread.latent == latent else 0
        found[latent] = Concept(result.label, result.f1_all_latent, n_languages)
    return found


def _best(catalogue: Catalogue, labels: Labels, concepts: Mapping[int, Concept], n: int) -> list[int]:
    """Latents that fire, those of planted concepts first, then by their label's F1, then by how often they fire."""
    alive = np.flatnonzero(catalogue.counts).tolist()
    counts = catalogue.counts

    def rank(latent: int) -> tuple[bool, float, int, int]:
        label = labels.label(latent)
        f1 = label.f1 if label.is_scored else -1.0
        return latent not in concepts, -f1, -int(counts[latent]), latent

    return sorted(alive, key=rank)[:n]


def read_card(feature: Feature, label: Label | None, concept: Concept | None, corpus: Corpus) -> FeatureCard:
    """A latent's evidence with its texts. `label` None: not labelled yet."""
    return FeatureCard(
        latent=feature.latent,
        label=label or unlabelled(feature.latent),
        concept=concept,
        count=feature.count,
        density=feature.density,
        maximum=feature.maximum,
        mean=feature.mean,
        histogram=feature.histogram.counts,
        top=tuple(_snippet(example, corpus) for example in feature.top),
        bands=tuple(
            Band(
                interval.low, interval.high, interval.count, tuple(_snippet(item, corpus) for item in interval.examples)
            )
            for interval in feature.intervals
        ),
        promoted=feature.promoted,
        suppressed=feature.suppressed,
    )


def _snippet(example: Example, corpus: Corpus) -> Snippet:
    tokens = corpus.tokens[example.start : example.end].tolist()
    pieces = tuple(corpus.pieces[token] for token in tokens)
    return Snippet(example.document, example.start, example.token - example.start, pieces, example.activations)


def _in_words(nonlinearity: Nonlinearity) -> str:
    match nonlinearity:
        case TopK(k=k):
            return f"top-k with k = {k}"
        case BatchTopK(k=k):
            return f"batch top-k with {k} on average"
        case ReLU():
            return "ReLU"
        case JumpReLU():
            return "JumpReLU"
        case Gated():
            return "gates"
        case _:
            assert_never(nonlinearity)
