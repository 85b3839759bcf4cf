"""The names that requests have for models, and what GET /v1/models lists: each run, and each of its variants. Loads no model."""

from collections.abc import Sequence
from pathlib import Path

from mohole.act import Intervention, Vector, as_json, open_variant, read_swept, sources_in, variant_names
from mohole.errors import MoholeError
from mohole.serve.errors import short
from mohole.serve.openai.refusals import OpenAIRefusal
from mohole.serve.runs import OpenRun, Served


class Names:
    """Of the runs that are served."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def listed(self) -> list[dict[str, object]]:
        """What GET /v1/models lists: each run, and each of its variants."""
        return [
            self._entry(run, variant)
            for run in self._served.runs.values()
            for variant in (None, *variant_names(run.folder))
        ]

    def entry(self, name: str) -> dict[str, object]:
        """One of them. Raises: OpenAIRefusal: 404."""
        run, variant = self.named(name)
        if variant is not None and variant not in variant_names(run.folder):
            raise unknown(name, f"{run.name} has no variant {short(variant)}")
        return self._entry(run, variant) | {"id": name}

    def _entry(self, run: OpenRun, variant: str | None) -> dict[str, object]:
        file = run.folder if variant is None else run.folder / "variants" / f"{variant}.json"
        is_here = run.model_source is not None
        facts: dict[str, object] = {"run": run.name, "model": run.model_name, "variant": variant, "is_here": is_here}
        if variant is not None:
            facts["interventions"] = _interventions(run, variant)
        else:
            facts["swept"] = _swept(run)
        return {
            "id": run.name if variant is None else f"{run.name}::{variant}",
            "object": "model",
            "created": _seconds(file),
            "owned_by": "mohole",
            "mohole": facts,
        }

    def named(self, name: str) -> tuple[OpenRun, str | None]:
        """(run, variant): a run by its own name, or by its model's where only one run has that. Raises: OpenAIRefusal: 404."""
        own, colons, variant = name.partition("::")
        runs = self._served.runs
        same = [runs[own]] if own in runs else [run for run in runs.values() if run.model_name == own]
        if len(same) != 1:
            there = ", ".join(runs)
            why = "several runs have this model" if same else "no such model"
            raise unknown(name, f"{why}; there are {there}, and GET /v1/models lists their variants")
        return same[0], variant if colons else None


def _interventions(run: OpenRun, name: str) -> list[dict[str, object]] | None:
    """What a variant does, where that is short; None with a direction's numbers in it, or where it holds no longer."""
    try:
        variant = open_variant(run.folder, name)
    except MoholeError:
        return None  # it is listed all the same: a request for it is refused with the reason
    return as_json(variant.interventions) if not _has_vector(variant.interventions) else None


def _swept(run: OpenRun) -> list[dict[str, object]] | None:
    """What the run's sweeps found, of the dictionaries that are served; None where one is damaged, as whoever steers is told."""
    try:
        found = read_swept(run.folder, {place: manifest.digest for place, manifest in run.manifests.items()})
    except MoholeError:
        return None
    return [
        {
            "interventions": as_json(each.interventions),
            "usable": {name: getattr(each.usable, name) for name in ("low", "high", "unit", "rule")},
        }
        for each in found
        if not _has_vector(each.interventions)
    ]


def unknown(name: str, why: str) -> OpenAIRefusal:
    """404 for a model's name."""
    return OpenAIRefusal(404, "model_not_found", f"{short(name)}: {why}", param="model")


def _seconds(file: Path) -> int:
    try:
        return int(file.stat().st_mtime)
    except OSError:
        return 0


def _has_vector(interventions: Sequence[Intervention]) -> bool:
    return any(isinstance(each, Vector) for each in sources_in(interventions))
