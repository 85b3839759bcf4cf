"""Plots of trainings show every number that was recorded, in its place, of every training there is, and stand alone."""

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.drawing import Axis, Sheet, write_page
from mohole.errors import ArtifactError, ConfigError
from mohole.record import write_json
from mohole.report.curves import draw, read_trainings, write_curves
from mohole.report.place import place_of_plots
from mohole.tensors import write_tensors

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 10, "rows": 640, "fvu": NaN}', "fvu is NaN, neither null nor a number up to 1e+100"),
        ('{"step": 10, "rows": 640, "fvu": 1e999}', "fvu is Infinity, neither"),
        ('{"step": 10, "rows": 640, "fvu": -1e308}', "fvu is -1e+308, neither"),
        ('{"step": 10, "rows": 640, "own": 1' + "0" * 400 + "}", "own is 1" + "0" * 39 + "..., neither"),
        ('{"step": 10, "rows": 640, "own": 1' + "0" * 9999 + "}", "Exceeds the limit"),
        ('{"step": 10, "rows": 640, "epoch": -Infinity}', "epoch is -Infinity, neither"),
        ('{"step": 10, "rows": 640, "fvu": "0.1"}', 'fvu is "0.1", neither'),
        ('{"step": 10, "rows": 640, "fvu": [0.1]}', "fvu is a list, neither"),
        ('{"step": 10, "rows": 640, "fvu": {}}', "fvu is an object, neither"),
        ('{"step": 10, "rows": 640, "fvu": true}', "fvu is true, neither"),
        ('{"step": 0, "rows": 640}', "step is 0, no whole number above zero"),
        ('{"step": null, "rows": 640}', "step is null, no whole number"),
        ('{"step": "10", "rows": 640}', 'step is "10", no whole number'),
        ('{"step": 10.5, "rows": 640}', "step is 10.5, no whole number"),
        ('{"step": 10, "rows": -1}', "rows is -1, no whole number"),
        ('{"step": 10, "rows": 1' + "0" * 400 + "}", "rows is 1000"),
        ('{"step": 10}', "no rows"),
        ('{"rows": 10}', "no step"),
        ("[]", "a list, no object"),
        ("7", "7, no object"),
        ("[" * 200_000, "recursion"),
        ("\udcff", "decode"),
        ("", "Expecting value"),
    ],
)
def test_a_line_that_no_training_writes_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "record.jsonl"
    good = json.dumps(line(5))
    file.write_text(f"{good}\n{text}\n{good}\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ArtifactError) as caught:
        read_trainings([file])
    said = str(caught.value)
    assert said.startswith(f"{file}, line 2: ")
    assert message in said
    assert said.endswith("; not the record of a training, or damaged")
    assert len(said) < 300 + len(str(file))


@given(
    lines=st.lists(
        st.fixed_dictionaries(
            {"step": st.integers(1, 2**63), "rows": st.integers(1, 2**63), "epoch": st.none() | st.integers(0, 9)},
            optional={
                name: st.none() | st.floats(-1e100, 1e100) | st.integers(-(10**100), 10**100)
                for name in ("fvu", "l0", "ce_recovered", "loss", "fvu/a", "own \ud800 <b>", "")
            },
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_numbers_a_record_holds_are_drawn(lines: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    file = folder / "record.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    for name in ("a.html", "a.svg"):
        write_curves(folder / name, "Training", read_trainings([file]))
        assert not re.search(r'[" ,](nan|inf)[", ]', (folder / name).read_text(encoding="utf-8"))


def test_nulls_are_gaps_not_damage(tmp_path: Path) -> None:
    record(tmp_path / "a" / "dictionary", [line(10, fvu=None), line(20), line(30), line(40, fvu=None, l0=None)])
    figure = next(f for f in draw(read_trainings([tmp_path / "a"]))[0] if f.title == "Variance unexplained (FVU)")
    ((first, second),) = polylines(figure.drawing)
    assert first[0] < second[0]


def test_a_picture_replaces_only_an_earlier_one(run: Path, tmp_path: Path) -> None:
    trainings = read_trainings([run])
    dictionary, draft = run / "resid_post.0" / "dictionary", run / "resid_post.1" / ".dictionary.partial"
    (tmp_path / "link").symlink_to(dictionary)
    for out, message in (
        (dictionary / "own.html", rf"own.html: inside {dictionary}, an artifact"),
        (dictionary / "deeper" / "own.svg", rf"own.svg: inside {dictionary}, an artifact"),
        (tmp_path / "link" / "own.html", rf"link/own.html: inside {dictionary}, an artifact"),
        (draft / "own.html", rf"own.html: inside {draft}, an artifact"),
        (dictionary / "record.jsonl", "plots are written as .html or .svg"),
        (tmp_path, "plots are written as .html or .svg"),
    ):
        before = sorted(run.rglob("*"))
        with pytest.raises(ConfigError, match=message):
            write_curves(out, "x", trainings)
        assert sorted(run.rglob("*")) == before
    page = run / "training.html"
    write_curves(page, "first", trainings)
    write_curves(page, "second", trainings)
    assert "second" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["plots.svg", "plots.html"])
def test_a_full_disk_leaves_the_picture_that_was_there(
    name: str, run: Path, tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    trainings = read_trainings([run])
    out = tmp_path / "pictures" / name
    out.parent.mkdir()
    write_curves(out, "before", trainings)
    (out.parent / f"link-{name}").symlink_to(out)
    before = out.read_bytes()
    small_files(4096)
    for path in (out, out.parent / f"link-{name}"):
        with pytest.raises(OSError, match="too large") as caught:
            write_curves(path, "after", trainings)
        assert caught.value.filename == str(path)
    assert out.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == [f"link-{name}", name]
    small_files(1 << 30)
    write_curves(out.parent / f"link-{name}", "after", trainings)
    assert (out.parent / f"link-{name}").is_symlink()
    assert b"after" in out.read_bytes()


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


EXTREME = [0.0, 5e-324, 1e-310, 1e-300, 1e-45, 1e-3, 1.0, 1.0 + 2**-52, 3.4e38, 1e100]


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("floor", [None, -0.25])
def test_the_ends_of_an_axis_may_be_any_numbers(scale: Any, floor: float | None) -> None:
    """A learning rate of 1e-300, a loss that float32 hardly held, both at once."""
    numbers = [x for x in EXTREME if x > 0] if scale == "log" else [*EXTREME, *(-x for x in EXTREME)]
    for low, high in ((low, high) for low in numbers for high in numbers if low <= high):
        axis = Axis.over([low, high], 0, 300, scale, floor=floor, has_zero=floor is not None)
        if floor is None:
            assert -0.1 <= axis.at(low) <= axis.at(high) <= 300.1 or low < 1e-290
        assert all(label and -0.1 <= axis.at(value) <= 300.1 for value, label in axis.ticks(32))


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


def test_labels_of_a_logarithmic_axis_are_of_one_kind() -> None:
    """FLOPs: 2e+09 beside 10 to the tenth would be two ways of writing on one axis."""
    labels = [label for _, label in Axis.over([1.2e9, 1e10], 0, 300, "log").ticks(32)]
    assert {"2·10⁹", "5·10⁹", "10¹⁰"} <= set(labels)


def number(label: str) -> float:
    times, dot, power = label.partition("·")
    if dot:
        return float(times) * number(power)
    if label.startswith("10") and len(label) > 2 and label[2] in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹":
        return math.pow(10.0, int("".join("-0123456789"["⁻⁰¹²³⁴⁵⁶⁷⁸⁹".index(letter)] for letter in label[2:])))
    sizes = {"k": 1e3, "M": 1e6, "G": 1e9}
    return float(label.rstrip("kMG").replace(",", "")) * sizes.get(label[-1], 1.0)


def test_a_number_that_is_undefined_does_not_turn_its_column_and_a_wide_table_scrolls_by_itself(tmp_path: Path) -> None:
    lines = [("fvu", "0.1 [0.09, 0.11]", "share"), ("mse", "undefined", "units")]
    write_page(tmp_path / "page.html", "t", [], [], [Sheet(("measure", "<b>a", "unit"), lines)])
    page = (tmp_path / "page.html").read_text()
    assert "<td>0.1 [0.09,\N{NO-BREAK SPACE}0.11]</td>" in page
    assert '<td class="words">share</td>' in page
    assert "<b>" not in page
    assert '<div class="wide"><table>' in page
