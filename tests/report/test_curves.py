"""Plots of trainings show every number that was recorded, in its place, of every training there is, and stand alone."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ArtifactError, ConfigError
from mohole.record import write_json
from mohole.report.curves import draw, place_of_plots, read_trainings, write_curves
from mohole.tensors import write_tensors
from mohole.train.axis import Axis

SVG = "{http://www.w3.org/2000/svg}"


def line(step: int, **others: Any) -> dict[str, Any]:
    return {
        "step": step, "rows": step * 64, "epoch": 0, "loss": 2.0 / step, "fvu": 1.0 / step, "l0": 8.0, "dead": step // 7,
        "lr": 0.5 / step, "gate_loss": 0.0, **others,
    }  # fmt: skip


def record(folder: Path, lines: list[dict[str, Any]], *, is_finished: bool = True) -> Path:
    folder.mkdir(parents=True)
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (folder / "record.jsonl").write_text(text, encoding="utf-8")
    if is_finished:
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
        write_json(folder / "dictionary.json", {"training": {"statistics_rows": 1000}})
        density = np.array([0.0, 0.001, 0.1, 0.1, 1.0], dtype=np.float32)
        write_tensors(folder / "statistics.safetensors", {"density": density})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two dictionaries, one of them just being learned again, and a sweep."""
    lines = [line(step) for step in range(10, 101, 10)]
    asked = [line(step, ce_recovered=1 - 5 / step, excess_ce=0.1 - step / 500) for step in range(10, 101, 10)]
    folder = tmp_path / "demo"
    record(folder / "resid_post.0" / "dictionary", lines)
    record(folder / "resid_post.1" / "dictionary", asked)
    stamp = {"n_pairs": 978, "n_documents": 20, "ce_clean": 0.75}
    write_json(folder / "resid_post.1" / "dictionary" / "in_model.json", stamp)
    draft = record(folder / "resid_post.1" / ".dictionary.partial", lines[:3], is_finished=False)
    with (draft / "record.jsonl").open("a") as file:
        file.write('{"step": 40, "fv')  # it is being written
    record(folder / "sweep" / "resid_post.0" / "n32", lines)
    record(folder / "sweep" / "resid_post.0" / "n64", lines)
    return folder


def test_the_trainings_of_a_run_are_its_dictionaries_finished_or_under_way(run: Path) -> None:
    found = {training.label: training for training in read_trainings([run])}
    assert set(found) == {"resid_post.0", "resid_post.1", "resid_post.1 (under way)"}
    assert len(found["resid_post.1 (under way)"].record) == 3
    density = found["resid_post.0"].density
    assert density is not None
    assert (density.zero, sum(density.counts)) == (1, 4)
    assert found["resid_post.1 (under way)"].density is None


def test_sweeps_dictionaries_and_records_are_read_too(run: Path, tmp_path: Path) -> None:
    assert [training.label for training in read_trainings([run / "sweep" / "resid_post.0"])] == ["n32", "n64"]
    for path in (run / "resid_post.0" / "dictionary", run / "resid_post.0" / "dictionary" / "record.jsonl"):
        assert [training.label for training in read_trainings([path])] == ["resid_post.0"]
    record(tmp_path / "other" / "resid_post.0" / "dictionary", [line(10), line(20)])
    both = read_trainings([run, tmp_path / "other"])
    assert [training.label for training in both][0::3] == ["demo resid_post.0", "other resid_post.0"]


def test_what_is_no_training_is_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="empty: holds no record of a training; `mohole train RECIPE` makes one"):
        read_trainings([tmp_path / "empty"])
    with pytest.raises(ArtifactError, match="nowhere: no such file or folder"):
        read_trainings([tmp_path / "nowhere"])
    file = run / "resid_post.0" / "dictionary" / "record.jsonl"
    for text, message in (("", "no line yet"), ("nonsense\n", "or damaged"), ('{"fvu": 1}\n', "or damaged")):
        file.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            read_trainings([file])
    with pytest.raises(ConfigError, match=r"plot.png: plots are written as .html or .svg"):
        write_curves(tmp_path / "plot.png", "x", read_trainings([run / "resid_post.1"]))


def test_plots_are_never_put_into_an_artifact_or_a_draft(run: Path) -> None:
    place = run / "resid_post.1"
    for path in (place, place / "dictionary", place / "dictionary" / "record.jsonl", place / ".dictionary.partial"):
        assert place_of_plots(path) == place / "training.html"
    assert place_of_plots(run) == run / "training.html"
    draft = record(run / "sweep" / ".resid_post.1.partial" / "n32", [line(10)], is_finished=False)
    assert place_of_plots(draft) == place_of_plots(draft.parent) == run / "sweep" / "training.html"
    assert place_of_plots(run / "sweep" / "resid_post.0" / "n32") == run / "sweep" / "resid_post.0" / "training.html"


def test_every_number_that_changes_is_drawn_and_the_others_are_named(run: Path) -> None:
    plots, notes = draw(read_trainings([run]))
    titles = [figure.title for figure in plots]
    assert titles == [
        "Variance unexplained (FVU)", "Dead latents", "CE recovered, mean ablation", "Excess loss in the model",
        "Loss, the sum of its terms", "Learning rate", "How often latents fire, at the end",
    ]  # fmt: skip
    assert any("the same at every line: l0 8, gate_loss 0." in note for note in notes)
    assert any("978 scored pairs of tokens in 20 held-out documents" in note for note in notes)
    assert any("resid_post.0 1 of 5, resid_post.1 1 of 5." in note for note in notes)
    record(run / "new" / "dictionary", [line(s, **{"fvu/a": 1 / s, "fvu/b": 2 / s, "own": s}) for s in (10, 20)])
    titles = [figure.title for figure in draw(read_trainings([run / "new"]))[0]]
    assert titles[:3] == ["Variance unexplained (FVU)", "FVU at a", "FVU at b"]
    assert "own" in titles


def test_the_files_stand_alone_and_are_the_same_bytes_again(run: Path, tmp_path: Path) -> None:
    trainings = read_trainings([run])
    for name in ("plots.svg", "plots.html"):
        assert write_curves(tmp_path / name, "Training, <demo>", trainings) == 7
        text = (tmp_path / name).read_text(encoding="utf-8")
        linked = text.replace("http://www.w3.org/2000/svg", "")
        assert not any(
            word in linked
            for word in ("http:", "https:", "<script", "nan", "inf,", "var(--" if "svg" in name else "url(")
        )
        assert "<demo>" not in text
        for training in trainings:
            assert training.label in text
        write_curves(tmp_path / f"again-{name}", "Training, <demo>", trainings)
        assert (tmp_path / f"again-{name}").read_text(encoding="utf-8") == text
    root = ElementTree.parse(tmp_path / "plots.svg").getroot()
    assert root.tag == f"{SVG}svg"
    assert len(list(root.iter(f"{SVG}polyline"))) == 3 * 4 + 2 * 1 + 2 + 3  # curves, CE of one, densities, the legend


def polylines(drawing: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]  # type: ignore[misc]
        for points in re.findall(r'<polyline class="curve" points="([^"]*)"', drawing)
    ]


def test_a_curve_goes_through_its_numbers(tmp_path: Path) -> None:
    lines = [line(step, fvu=fvu, own=own) for step, fvu, own in ((10, 0.1, 1.0), (20, 0.01, 3.0), (40, 0.001, 2.0))]
    record(tmp_path / "a" / "dictionary", lines)
    plots = {figure.title: figure for figure in draw(read_trainings([tmp_path / "a"]))[0]}
    ((first, second, third),) = polylines(plots["Variance unexplained (FVU)"].drawing)
    assert third[0] - second[0] == pytest.approx(2 * (second[0] - first[0]), abs=0.2)  # steps: linear
    assert third[1] - second[1] == pytest.approx(second[1] - first[1], abs=0.2)
    assert third[1] > second[1]  # FVU: tenfold is as far, downwards
    ((first, second, third),) = polylines(plots["own"].drawing)
    assert first[1] - second[1] == pytest.approx(2 * (third[1] - second[1]), abs=0.2)
    assert second[1] < first[1]


def test_an_excess_below_zero_is_on_the_picture(run: Path) -> None:
    figure = next(each for each in draw(read_trainings([run]))[0] if each.title == "Excess loss in the model")
    curve = next(points for points in polylines(figure.drawing) if points)
    assert len(curve) == 10
    assert curve[-1][1] == max(y for _, y in curve)


def test_a_spike_stays_in_a_long_curve(tmp_path: Path) -> None:
    steps = range(1, 20_001)
    lines = [line(step, own=100.0 if step == 12_345 else 1.0 + step % 2 * 0.01) for step in steps]
    record(tmp_path / "a" / "dictionary", lines)
    figure = next(each for each in draw(read_trainings([tmp_path / "a"]))[0] if each.title == "own")
    (curve,) = polylines(figure.drawing)
    assert len(curve) <= 400
    top = min(curve, key=lambda point: point[1])
    assert sum(y < top[1] + 50 for _, y in curve) == 1


@given(
    low=st.floats(1e-9, 1e6),
    factor=st.floats(1.0, 1e9),
    scale=st.sampled_from(["log", "linear"]),
    length=st.integers(150, 500),
)
def test_ticks_are_apart_and_on_the_axis_and_say_where_they_stand(
    low: float, factor: float, scale: Any, length: int
) -> None:
    axis = Axis.over([low, low * factor], 0, length, scale)
    ticks = axis.ticks(32)
    assert 2 <= len(ticks) <= length / 32 + 1
    places = [axis.at(value) for value, _ in ticks]
    assert all(b - a >= 31.8 for a, b in pairwise(places))
    assert places[0] >= -0.1
    assert places[-1] <= length + 0.1
    assert len({label for _, label in ticks}) == len(ticks)
    for value, label in ticks:
        assert number(label) == pytest.approx(
            value, rel=0.02, abs=(axis.high - axis.low) * 1e-3 if scale == "linear" else 0
        )


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.1], ["0", "0.25", "0.50", "0.75", "1.00"]),
        ([0.0, 5e-5], ["0", "2e-5", "4e-5"]),
        ([0.0, 25_000.0], ["0", "10k", "20k"]),
        ([15.99, 16.0], ["15.9900", "15.9925", "15.9950", "15.9975", "16.0000"]),
        ([0.0, 1.3e6], ["0", "0.5M", "1.0M"]),
        ([-0.002, 0.016], ["0", "0.005", "0.010", "0.015"]),
    ],
)
def test_labels_have_the_digits_of_their_step(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in Axis.over(values, 0, 160, "linear").ticks(32)] == labels


def number(label: str) -> float:
    if label.startswith("10") and len(label) > 2 and label[2] in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹":
        return math.pow(10.0, int("".join("-0123456789"["⁻⁰¹²³⁴⁵⁶⁷⁸⁹".index(letter)] for letter in label[2:])))
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9}
    return float(label.rstrip("kMG").replace(",", "")) * sizes.get(label[-1], 1.0)
