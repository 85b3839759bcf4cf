"""The run page: training curves, measures, costs, and where every artifact came from. Reads small files of the run."""

import math
from typing import Any

from mohole.errors import ArtifactError
from mohole.evaluate import read_evaluation
from mohole.record import read_record
from mohole.serve.answers import run_facts
from mohole.serve.runs import OpenHookpoint, OpenRun
from mohole.serve.shapes import ArtifactFacts, Curve, MeasureFacts, RunPage

_MOST_POINTS = 1000  # of a curve: a screen has about as many columns
_NOT_CURVES = ("step", "epoch", "rows")


def run_page(run: OpenRun) -> RunPage:
    """Everything about a run but its features."""
    return RunPage(
        run=run_facts(run),
        curves={each.name: _curves(each) for each in run.hookpoints.values()},
        measures={each.name: _measures(each) for each in run.hookpoints.values()},
        costs=_costs(run),
        artifacts=tuple(
            ArtifactFacts(
                name=name,
                kind=manifest.kind,
                digest=manifest.digest,
                code=manifest.code,
                seed=manifest.inputs.seed,
                parents=dict(manifest.inputs.parents),
                config=dict(manifest.inputs.config),
            )
            for name, manifest in run.manifests.items()
        ),
    )


def _curves(place: OpenHookpoint) -> tuple[Curve, ...]:
    """Of the training's record; none for a dictionary from elsewhere. Long ones thinned evenly, the last step kept."""
    file = place.folder / "dictionary" / "record.jsonl"
    if not file.is_file():
        return ()
    lines = [line for line in _read(file) if isinstance(line.get("step"), int)]
    stride = max(1, math.ceil(len(lines) / _MOST_POINTS))
    lines = lines[::-1][::stride][::-1]
    names = sorted({name for line in lines for name, value in line.items() if _is_number(value)} - {*_NOT_CURVES})
    steps = tuple(line["step"] for line in lines)
    return tuple(
        Curve(name=name, steps=steps, values=tuple(_number(line.get(name)) for line in lines)) for name in names
    )


def _measures(place: OpenHookpoint) -> tuple[MeasureFacts, ...]:
    folder = place.folder / "evaluation"
    if not folder.is_dir():
        return ()
    return tuple(
        MeasureFacts(
            name=each.name,
            value=each.value,
            unit=each.unit,
            low=each.low,
            high=each.high,
            n=each.n,
            baseline=each.baseline,
            definition=each.definition,
        )
        for each in read_evaluation(folder).measures.values()
    )


def _costs(run: OpenRun) -> tuple[tuple[str, float, float], ...]:
    file = run.folder / "job.jsonl"
    keys = ("cpu_seconds", "wall_seconds")
    lines = _read(file) if file.is_file() else []
    return tuple(
        (str(line["stage"]), *(float(line[key]) for key in keys))  # type: ignore[misc]
        for line in lines
        if "stage" in line and all(_is_number(line.get(key)) for key in keys)
    )


def _read(file: Any) -> list[dict[str, Any]]:
    try:
        return list(read_record(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: damaged ({error})") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
