"""What trainings recorded, as pictures: one small plot for each number, several trainings in each. Reads records; trains nothing.

A training that is under way is drawn as far as it has come, from the draft in which it is made.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.drawing import SMALL, Figure, Scale, Series, Sheet, plot, write_drawing, write_page
from mohole.errors import ArtifactError
from mohole.metrics import DensityHistogram, Firing
from mohole.record import read_json
from mohole.report.place import check_place
from mohole.tensors import open_tensors
from mohole.train.in_model import IN_MODEL_FILE
from mohole.train.loop import RECORD_FILE, STATISTICS_FILE

_MOST_POINTS = 400
"""Of a line: more than a small plot has pixels for."""
_FEW_POINTS = 40
"""Up to here each point is marked, and says its number."""
_SHORT = 40
_MOST, _MOST_COUNT = 1e100, 2**63
"""Of a number and of a count in a record: far beyond float32, in which training is done, and an axis can still be made of it."""
_UNITS = "training units"
_CUT = -0.25
"""CE recovered may begin at minus ten and end above 0.99: the beginning is cut off."""
_PLACES = ("step", "rows", "epoch")
_HEADS = ("training", "step", "fvu", "l0", "dead", "ce_recovered", "excess_ce")


@dataclass(frozen=True)
class _Number:
    """How a number of the record is drawn."""

    title: str
    unit: str
    scale: Scale = "linear"
    floor: float | None = None
    has_zero: bool = False


_NUMBERS: dict[str, _Number] = {
    "fvu": _Number("Variance unexplained (FVU)", "share of variance", "log"),
    "l0": _Number("Active latents (L0)", "latents per row", has_zero=True),
    "dead": _Number("Dead latents", "latents"),
    "ce_recovered": _Number("CE recovered, mean ablation", "share of its damage", floor=_CUT),
    "ce_recovered_zero": _Number("CE recovered, zero ablation", "share of its damage", floor=_CUT),
    "excess_ce": _Number("Excess loss in the model", "nats per token", "log"),
    "loss": _Number("Loss, the sum of its terms", _UNITS, "log"),
    "mse_loss": _Number("Squared error", _UNITS, "log"),
    "sparsity_loss": _Number("Sparsity penalty", _UNITS),
    "auxk_loss": _Number("AuxK", _UNITS),
    "pre_act_loss": _Number("Dead latents' pre-activations", _UNITS),
    "gate_loss": _Number("Squared error of gates", _UNITS, "log"),
    "grad_norm": _Number("Gradient norm, before clipping", _UNITS, "log"),
    "lr": _Number("Learning rate", ""),
    "encoder_norm": _Number("Encoder rows, mean length", _UNITS),
    "decoder_norm": _Number("Decoder rows, mean length", _UNITS),
}
"""In the order in which they are drawn; what else a record holds comes after them, by its own name."""


@dataclass(frozen=True)
class Training:
    """What one training has left so far."""

    label: str
    record: tuple[Mapping[str, Any], ...]
    density: DensityHistogram | None
    """Of the last tenth of the steps; None before the end."""
    stamp: Mapping[str, Any] | None
    """What its numbers in the model are of."""


def read_trainings(paths: Sequence[Path]) -> list[Training]:
    """The trainings in runs, sweeps, dictionaries or records. Of a run its dictionaries, or its sweeps where it has none.

    Raises:
        ArtifactError: no record there, or one that is damaged or still empty.
    """
    found: dict[Path, str] = {}
    for path in paths:
        for file in _records(path):
            found[file] = _label(file.parent, path, is_one=len(paths) == 1)
    labels = list(found.values())
    shared = {label.split(" ")[0] for label in labels}
    if len(labels) > 1 and len(shared) == 1 and all(" " in label for label in labels):  # all of one sweep
        labels = [label.split(" ", 1)[1] for label in labels]
    trainings = [_read(file, label) for file, label in zip(found, labels, strict=True)]
    if not any(training.record for training in trainings):
        raise ArtifactError(f"{paths[0]}: its record has no line yet; wait for the first {RECORD_FILE} line")
    return [training for training in trainings if training.record]


def write_curves(out: Path, title: str, trainings: Sequence[Training]) -> int:
    """Write a page (.html) or one drawing (.svg) of everything that was recorded. Returns the number of pictures.

    Raises:
        ConfigError: another kind of file, or one in an artifact.
    """
    check_place(out, "--out", (".html", ".htm", ".svg"))
    plots, notes = draw(trainings)
    legend = [training.label for training in trainings] if len(trainings) > 1 else []
    if out.suffix.lower() == ".svg":
        write_drawing(out, title, notes, plots, legend)
    else:
        lines = [_line(training) for training in trainings]
        write_page(out, title, notes, plots, [Sheet(_HEADS, lines)], legend=legend)
    return len(plots)


def draw(trainings: Sequence[Training]) -> tuple[list[Figure], list[str]]:
    """A plot for each number that changes, and what there is to say of the others and of what was measured."""
    x_name = "step" if len({line["rows"] // line["step"] for t in trainings for line in t.record[:1]}) == 1 else "rows"
    plots, still = [], []
    for name in _names(trainings):
        values = [line[name] for training in trainings for line in training.record if line.get(name) is not None]
        if len(set(values)) > 1:
            plots.append(_plot(name, trainings, x_name))
        elif values:
            still.append(f"{name} {values[0]:.4g}")
    if any(training.density for training in trainings):
        plots.append(_density_plot(trainings))
    notes = [*_notes(trainings)]
    if still:
        notes.append(f"Not drawn, the same at every line: {', '.join(still)}.")
    return plots, notes


def _records(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / RECORD_FILE).is_file():
        return [path / RECORD_FILE]
    found = sorted(path.rglob(RECORD_FILE))
    own = [file for file in found if "sweep" not in file.relative_to(path).parts]
    if not found:
        what = "holds no record of a training" if path.is_dir() else "no such file or folder"
        raise ArtifactError(f"{path}: {what}; `mohole train RECIPE` makes one")
    return own or found


def _label(folder: Path, path: Path, *, is_one: bool) -> str:
    """Its place below `path`, without the words that say nothing; a draft is under way."""
    base = path if path.is_dir() else path.parent
    inside = folder.relative_to(base).parts
    parts = list(inside) or [folder.resolve().parent.name, folder.resolve().name]
    if not is_one and inside:
        parts.insert(0, base.resolve().name)
    named = [part.removeprefix(".").removesuffix(".partial") for part in parts if part != "sweep"]
    label = " ".join(name for name in named if name != "dictionary") or folder.name
    return label + (" (under way)" if any(part.startswith(".") for part in parts) else "")


def _read(file: Path, label: str) -> Training:
    record = tuple(_lines(file))
    folder = file.parent
    stamp = read_json(folder / IN_MODEL_FILE) if (folder / IN_MODEL_FILE).is_file() else None
    return Training(label, record, _density(folder), stamp)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """As `read_record`, each line looked at: what is drawn was written by any process, or edited by a hand.

    Raises:
        ArtifactError: a line that no training writes; with its number, and the key and the value that are wrong.
    """
    with file.open("rb") as opened:
        for number, text in enumerate(opened, 1):
            if not text.endswith(b"\n"):
                return  # it is just being written
            try:
                line = json.loads(text)
                wrong = _wrong(line)
            except (ValueError, RecursionError) as error:  # no JSON, no text, a number of too many digits, too deep
                wrong = str(error)
            if wrong:
                raise ArtifactError(f"{file}, line {number}: {wrong}; not the record of a training, or damaged")
            yield line


def _wrong(line: Any) -> str:
    """What no training writes into a line; nothing where all is well."""
    if not isinstance(line, dict):
        return f"{_said(line)}, no object"
    for name in ("step", "rows"):
        if name not in line:
            return f"no {name}"
        if type(line[name]) is not int or not 1 <= line[name] <= _MOST_COUNT:
            return f"{name} is {_said(line[name])}, no whole number above zero"
    for name, value in line.items():
        if value is not None and (type(value) not in (int, float) or not abs(value) <= _MOST):
            return f"{name[:_SHORT]} is {_said(value)}, neither null nor a number up to {_MOST:g}"
    return ""


def _said(value: Any) -> str:
    """A value as it stands in the line, if it is short."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def _density(folder: Path) -> DensityHistogram | None:
    if not (folder / STATISTICS_FILE).is_file() or not (folder / "dictionary.json").is_file():
        return None
    n_rows = int(read_json(folder / "dictionary.json", "training")["training"]["statistics_rows"])
    density: NDArray[np.float64] = open_tensors(folder / STATISTICS_FILE)["density"].astype(np.float64)
    firing = Firing(len(density))
    firing.counts, firing.n_rows = np.rint(density * n_rows).astype(np.int64), n_rows
    return firing.histogram()


def _names(trainings: Sequence[Training]) -> list[str]:
    """Every number of the records: those that are known, each site's fvu after the whole one, then the others."""
    found = {name: None for training in trainings for line in training.record for name in line if name not in _PLACES}
    order = list(_NUMBERS)

    def rank(name: str) -> tuple[int, str]:
        whole = name.split("/")[0]
        return (order.index(whole), name) if whole in order else (len(order), name)

    return sorted(found, key=rank)


def _plot(name: str, trainings: Sequence[Training], x_name: str) -> Figure:
    whole, _, site = name.partition("/")
    known = _NUMBERS.get(whole, _Number(whole, ""))
    title = known.title if not site else f"{whole.upper()} at {site}"
    curves = [[(line[x_name], line[name]) for line in t.record if line.get(name) is not None] for t in trainings]
    lowest = min(y for curve in curves for _, y in curve)
    # An excess loss may be below zero, which a logarithmic axis would hide.
    scale: Scale = "log" if known.scale == "log" and lowest > 0 else "linear"
    if known.floor is not None and lowest < known.floor:
        title += f", cut at {known.floor:g}"
    return plot(
        title,
        f"{x_name}s" if x_name == "step" else "rows trained on",
        known.unit,
        [_series(training.label, name, curve) for training, curve in zip(trainings, curves, strict=True)],
        x_scale="linear",
        y_scale=scale,
        size=SMALL,
        has_legend=False,
        floor=known.floor,
        has_zero=known.has_zero,
    )


def _series(label: str, name: str, curve: Sequence[tuple[float, float]]) -> Series:
    points: tuple[tuple[float, float, str], ...] = ()
    if len(curve) <= _FEW_POINTS:
        points = tuple((x, y, f"{label}, {x:,}: {name} {y:.5g}") for x, y in curve)
    return Series(label, points, tuple(_thinned(curve)) if len(curve) > 1 else ())


def _thinned(curve: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Of each stretch its lowest and its highest point, in their order: a spike stays a spike."""
    stride = -(-2 * len(curve) // _MOST_POINTS)
    if stride <= 2:
        yield from curve
        return
    for first in range(0, len(curve), stride):
        stretch = curve[first : first + stride]
        low, high = min(stretch, key=lambda at: at[1]), max(stretch, key=lambda at: at[1])
        yield from sorted({low, high})


def _density_plot(trainings: Sequence[Training]) -> Figure:
    """Outlines of histograms: bars of several trainings would hide each other."""
    series = []
    for training in trainings:
        line: list[tuple[float, float]] = []
        if training.density is not None:
            edges, counts = training.density.edges, training.density.counts
            first = next((i for i, n in enumerate(counts) if n), 0)
            for low, high, n in list(zip(edges, edges[1:], counts, strict=False))[max(first - 1, 0) :]:
                line += [(10.0**low, float(n)), (10.0**high, float(n))]
            line.append((line[-1][0], 0.0))
        series.append(Series(training.label, (), tuple(line)))
    title = "How often latents fire, at the end"
    return plot(
        title, "share of rows", "latents", series, x_scale="log", y_scale="linear", size=SMALL, has_legend=False
    )


def _notes(trainings: Sequence[Training]) -> Iterator[str]:
    said: dict[str, None] = {}
    for training in trainings:
        if training.stamp is not None:
            stamp = training.stamp
            said[
                f"ce_recovered, excess_ce: the reconstruction in place of the activation, over {stamp['n_pairs']:,} scored pairs "
                f"of tokens in {stamp['n_documents']:,} held-out documents; the model untouched loses {stamp['ce_clean']:.4g} "
                "nats. It saturates, so read the excess beside it."
            ] = None
    yield from said
    silent = [
        f"{training.label} {training.density.zero:,} of {training.density.zero + sum(training.density.counts):,}"
        for training in trainings
        if training.density is not None
    ]
    if silent:
        yield f"Latents that never fired in the last tenth of the steps: {', '.join(silent)}."


def _line(training: Training) -> list[str]:
    last: dict[str, Any] = {}
    for line in training.record:
        last |= {name: value for name, value in line.items() if value is not None}
    figures = [f"{last['step']:,}"] + ["" if name not in last else f"{last[name]:.5g}" for name in _HEADS[2:]]
    return [training.label, *figures]
