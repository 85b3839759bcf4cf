"""What one artifact holds, in a terminal: its figures, labels, features or texts. Where it came from is `mohole show`'s part."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from rich.console import Console, Group, RenderableType
from rich.text import Text

from mohole import artifact
from mohole.act import read_dose, read_steering
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    CrossLayerTranscoder,
    NormalisedAutoencoder,
    SparseAutoencoder,
    Transcoder,
)
from mohole.dictionary.files import open_dictionary
from mohole.errors import ArtifactError, ConfigError
from mohole.evaluate.files import read_evaluation
from mohole.evaluate.results import Evaluation
from mohole.interpret import Label, Labels, Status
from mohole.metrics import Measure
from mohole.record import read_record
from mohole.report.dose import dose_text
from mohole.report.findings import FeatureCard
from mohole.report.read import read_card
from mohole.report.suites import suite_tables
from mohole.report.sweeps import sweep_text
from mohole.report.terminal import WIDEST, needs_marks, plain_table, share, snippet_line, steering_table
from mohole.store import Store
from mohole.synthetic import read_scores
from mohole.train.table import TABLE_FILE, SweepTable
from mohole.visible import visible

_N_LABELS = 20
_N_PROMOTED = 8


def print_contents(path: Path, console: Console, latent: int | None = None) -> None:
    """Print what the artifact at `path` holds; of a catalogue, one latent's feature.

    Raises:
        ArtifactError: damaged, or a feature is asked for and its corpus is not beside it.
        ConfigError: no such latent, or `latent` for what is no catalogue.
    """
    kind = artifact.read_manifest(path).kind
    if latent is not None and kind != "catalogue":
        raise ConfigError(
            f"{path}: holds {kind}; a latent's number goes with a catalogue: mohole show CATALOGUE LATENT"
        )
    if kind == "published":
        raise ArtifactError(f"{path}: a published folder, made for a browser; mohole serve {path} shows it")
    width = min(console.width, WIDEST)
    console.print(_contents(path, kind, latent, width, marks=needs_marks(console)), width=width)


def _contents(path: Path, kind: str, latent: int | None, width: int, *, marks: bool) -> RenderableType:
    match kind:
        case "corpus":
            return _corpus(Corpus.open(path))
        case "activations" | "shuffled":
            return _store(Store.open(path))
        case "dictionary":
            return _dictionary(path)
        case "evaluation":
            return _evaluation(read_evaluation(path))
        case "catalogue":
            return _catalogue(path, latent, width, marks=marks)
        case "labels":
            return _labels(Labels.open(path))
        case "steering" | "dose":
            return steering_table(read_steering(path)) if kind == "steering" else dose_text(read_dose(path))
        case "sweep":
            return sweep_text(SweepTable.read(path / TABLE_FILE))
        case "scores":
            return _known_features(read_scores(path))
        case _:
            raise ArtifactError(f"{path}: holds {kind!r}, which this mohole does not know; use the one that made it")


def _known_features(scores: Mapping[str, Measure]) -> RenderableType:
    table = plain_table("Against the features that the rows were made of")
    for head in ("score", "value", "95 %", "unit"):
        table.add_column(head, justify="right" if head in ("value", "95 %") else "left", no_wrap=True)
    for name, measure in scores.items():
        bounds = "" if measure.low is None else f"{measure.low:.4f} to {measure.high:.4f}"
        table.add_row(name, "-" if measure.value is None else f"{measure.value:.4f}", bounds, measure.unit)
    return table


def _corpus(corpus: Corpus) -> RenderableType:
    n_held_out = int(corpus.held_out.sum())
    known = f"; {len(corpus.labels)} kinds of truth about them" if corpus.labels else ""
    first = corpus.text(0, int(min(corpus.document_starts[1], corpus.context)))
    return Group(
        Text(f"{corpus.n_tokens:,} tokens in {corpus.n_documents:,} documents, {n_held_out:,} of them held out{known}"),
        Text.assemble("begins: ", (visible(first), "dim")),
    )


def _store(store: Store) -> RenderableType:
    widths = ", ".join(f"{name} ({store.d_model(name)} wide)" for name in store.hookpoints)
    order = "the order of the text" if store.facts.order.kind == "text" else "shuffled order"
    if not store.facts.is_sorted:
        order = f"runs to be merged into {order}"
    n_shards = sum(len(shards) for shards in store.layout.shards.values())
    clipped = sum(store.facts.n_clipped.values())
    more = f"; {clipped:,} values clipped" if store.dtype == "int8" else ""
    return Text(f"{store.n_rows:,} rows in {store.dtype}, in {n_shards} shards, {order}, of {widths}{more}")


_SHARES = ("fvu", "l0", "ce_recovered", "excess_ce")


def _dictionary(path: Path) -> RenderableType:
    dictionary, file = open_dictionary(path), path / "record.jsonl"
    record = read_record(file) if file.is_file() else []  # one of another library has none
    size = f"{dictionary.n_latents:,} latents {_place(dictionary)}"
    last = record[-1] if record else {}
    counts = [f"{name} {last[name]:,}" for name in ("step", "rows", "dead") if name in last]
    shares = [f"{name} {last[name]:.4g}" for name in _SHARES if last.get(name) is not None]
    figures = ", ".join(counts + shares)
    return Group(
        Text(size), Text(f"last recorded batch of training: {figures}" if last else "no record of its training")
    )


def _place(dictionary: AnyDictionary) -> str:
    match dictionary:
        case SparseAutoencoder():
            return f"of {dictionary.d_model} dimensions at {dictionary.hookpoint}"
        case NormalisedAutoencoder():
            return f"of {dictionary.d_model} dimensions at {dictionary.hookpoint}, each row normalised by itself"
        case Transcoder():
            return f"from {dictionary.reads} to {dictionary.writes}"
        case Crosscoder():
            return f"shared by {', '.join(dictionary.hookpoints)}"
        case CrossLayerTranscoder():
            layers = zip(dictionary.reads, dictionary.writes, strict=True)
            return "across layers: " + ", ".join(f"{reads} to {writes} and later" for reads, writes in layers)
        case _:
            assert_never(dictionary)


def _evaluation(evaluation: Evaluation) -> RenderableType:
    table = plain_table(f"{evaluation.hookpoint} on documents never trained on")
    for head in ("measure", "value", "low", "high", "unit"):
        table.add_column(head, justify="left" if head in ("measure", "unit") else "right", no_wrap=head != "unit")
    counted: dict[str, list[str]] = {}
    for name, measure in evaluation.measures.items():
        value, low, high = (_number(number) for number in (measure.value, measure.low, measure.high))
        table.add_row(name, value, low, high, measure.undefined or measure.unit)
        counted.setdefault(f"{measure.n:,} {measure.n_of}", []).append(name)
    note = "low, high: 95 %, over resampled documents. " + "; ".join(f"{', '.join(v)}: {k}" for k, v in counted.items())
    parts: list[RenderableType] = [table, Text(note, "dim")]
    if evaluation.tasks:
        tasks = plain_table("Right answers of the model, clean and with the reconstruction in place")
        for head in ("task", "clean", "replaced", "prompts"):
            tasks.add_column(head, justify="left" if head == "task" else "right")
        for task in evaluation.tasks:
            tasks.add_row(task.name, f"{task.clean:.3f}", f"{task.replaced:.3f}", str(task.n))
        parts.append(tasks)
    if evaluation.suites:
        parts.append(suite_tables(evaluation, plain_table("Supervised and causal measurements")))
    parts.append(_dark_matter(evaluation))
    checked = evaluation.checked
    right = checked.n_answers - len(checked.wrong)
    parts.append(
        Text(f"definitions {checked.definitions[:8]}: {right} of {checked.n_answers} known answers right", "dim")
    )
    parts += [
        Text.assemble((f"{warning.name}: ", "bold"), visible(warning.sentence)) for warning in evaluation.warnings
    ]
    return Group(*parts)


def _dark_matter(evaluation: Evaluation) -> RenderableType:
    """Whose error it is, and which latents nearly always fire."""
    table = plain_table(f"What is unexplained, by class of token ({evaluation.dark_matter.n_rows:,} rows)")
    for head in ("class", "rows", "share of rows", "share of error", "FVU"):
        table.add_column(head, justify="left" if head == "class" else "right")
    for each in evaluation.dark_matter.classes:
        shares = (each.share_of_rows, each.share_of_error.value, each.fvu.value)
        table.add_row(each.name, f"{each.n:,}", *(_number(share) for share in shares))
    dense = evaluation.dark_matter.dense
    if not dense:
        return table
    first = ", ".join(f"{one.latent} ({one.density:.0%}, {_number(one.mean_cosine)})" for one in dense[:6])
    note = f"Dense latents (share of rows in which they fire, cosine with the mean row): {first}{', ...' if dense[6:] else ''}"
    return Group(table, Text(note, "dim"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _labels(labels: Labels) -> RenderableType:
    counts = Counter(label.status for label in labels)
    order: tuple[Status, ...] = ("good", "partial", "none", "few", "dead")
    table = plain_table(", ".join(f"{counts[status]:,} {status}" for status in order if counts[status]))
    for head in ("latent", "label", "F1", "precision", "recall", "fires"):
        table.add_column(head, justify="left" if head == "label" else "right")
    best = sorted(labels, key=lambda label: (-label.f1, -label.n_positive, label.latent))
    for label in best[:_N_LABELS]:
        table.add_row(str(label.latent), visible(label.text), *_scores(label), f"{label.n_positive:,}")
    note = (
        f"The best {min(_N_LABELS, len(labels))} of {len(labels):,}; F1 on documents the labeller did not study. "
        "good: F1 of .8 or more; partial: .5 or more; none: no simple rule found; few: fires too rarely to say; dead: never."
    )
    return Group(table, Text(note, "dim"))


def _scores(label: Label) -> tuple[str, str, str]:
    if not label.is_scored:
        return "-", "-", "-"
    return f"{label.f1:.2f}", f"{label.precision:.2f}", f"{label.recall:.2f}"


def _catalogue(path: Path, latent: int | None, width: int, *, marks: bool) -> RenderableType:
    catalogue = Catalogue.open(path)
    if latent is None:
        n_alive = int((catalogue.counts > 0).sum())
        return Text(
            f"{catalogue.n_latents:,} latents at {catalogue.hookpoint}, {n_alive:,} of them active on {catalogue.n_tokens:,} "
            f"tokens of {catalogue.n_documents:,} documents. One feature: mohole show {path} LATENT"
        )
    if not 0 <= latent < catalogue.n_latents:
        raise ConfigError(f"latent {latent}: {path} has latents 0 to {catalogue.n_latents - 1}")
    return feature_text(_card(path, catalogue, latent), catalogue.hookpoint, width, marks=marks)


def _card(path: Path, catalogue: Catalogue, latent: int) -> FeatureCard:
    run = path.resolve().parent.parent
    labels = path.resolve().parent / "labels"
    if not (run / "corpus" / artifact.MANIFEST).is_file():
        raise ArtifactError(
            f"{run / 'corpus'}: not there, and a feature's texts stand in it; show the catalogue inside its run"
        )
    label = Labels.open(labels).label(latent) if (labels / artifact.MANIFEST).is_file() else None
    return read_card(catalogue.feature(latent), label, None, Corpus.open(run / "corpus"))


def feature_text(card: FeatureCard, hookpoint: str, width: int, *, marks: bool) -> RenderableType:
    """One feature: its label and figures, its strongest examples, examples at each strength, what it promotes."""
    f1 = "" if card.f1 is None else f", label F1 {card.f1:.2f}"
    lines: list[RenderableType] = [
        Text(f"{hookpoint}/{card.latent}  {visible(card.label.text)}", "bold"),
        Text(f"fires on {share(card.density)} of tokens ({card.count:,}), largest {card.maximum:.3g}{f1}"),
    ]
    for title, snippets in (
        ("strongest", card.top),
        *((f"{band.low:.3g} to {band.high:.3g}: {band.count:,} times", band.snippets) for band in reversed(card.bands)),
    ):
        if snippets:
            lines.append(Text(title, "dim"))
        lines += [
            Text.assemble(f"  {snippet.value:6.3g}  ", snippet_line(snippet, card.maximum, width - 10, marks=marks))
            for snippet in snippets
        ]
    for title, entries in (("raises", card.promoted), ("lowers", card.suppressed)):
        if entries:
            pieces = "  ".join(f"{visible(piece)} {logit:+.2f}" for piece, logit in entries[:_N_PROMOTED])
            lines.append(Text(f"{title} the next token's logits: {pieces}"))
    return Group(*lines)
