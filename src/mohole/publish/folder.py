"""Publishing: finished runs in, a whole folder out, or nothing. What is in its files is made by evidence.py and tables.py."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mohole import artifact
from mohole.catalogue.blocks import pack
from mohole.catalogue.layout import FEATURES_PER_BLOCK, HEADER
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.progress import track
from mohole.publish import layout
from mohole.publish.evidence import block_with_texts
from mohole.publish.tables import n_families, write_tables
from mohole.serve.answers import run_facts
from mohole.serve.bodies import json_bytes
from mohole.serve.published import INDEX_FILE, KIND, is_published
from mohole.serve.relations import places_of
from mohole.serve.run_page import run_page
from mohole.serve.runs import OpenHookpoint, OpenRun, Served, open_runs
from mohole.serve.static import FOLDER
from mohole.version import __version__

_BUILT_FROM = ".sources"  # of the app: for those who build it
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'"
"""As the server's headers: a static host sends none."""


@dataclass(frozen=True)
class Published:
    """A published folder."""

    path: Path
    is_new: bool
    """False: it was there, whole, from the same runs and settings."""
    n_features: int
    n_bytes: int
    """Of the features: without the app and the run pages."""
    app_bytes: int
    context_tokens: int | None
    """On either side of an example's token; None: as the catalogues keep them, which do not say."""
    runs: tuple[str, ...]

    @property
    def bytes_per_feature(self) -> float:
        return self.n_bytes / max(self.n_features, 1)


def publish(
    runs: Sequence[Path | str],
    out: Path | str,
    *,
    context_tokens: int | None = None,
    replace: bool = False,
    static: Path = FOLDER,
) -> Published:
    """Write a folder that shows these runs on any host that answers range requests; nothing appears before it is whole.

    Only the examples' texts are in it, never the corpus. Labels by hand are in it, notes and lists are not.

    Args:
        context_tokens: of text on either side of an example's token; None: all that the catalogues keep.
        replace: publish again where another publication is.
        static: the built app.

    Raises:
        ArtifactError: a run that is unfinished, damaged, or whose artifacts do not belong together, or another publication is at
            `out`.
        ConfigError: `out` holds something else, or lies in a run. StageError: the app is not built.
    """
    out = Path(out)
    if context_tokens is not None and context_tokens < 0:
        raise ConfigError(f"context_tokens: {context_tokens}; 0 publishes the examples' tokens alone")
    artifact.mend(out)
    _check_place(out, [Path(run) for run in runs])
    served = open_runs(runs)
    try:
        if not (static / "index.html").is_file():
            raise StageError("the web app is not built in this installation; `make web` builds it, which needs Node")
        for corpus in {place.corpus.path for place in _places(served)}:
            artifact.open_artifact(corpus)  # all of it: who reads what is published can compare it with nothing
        reach = _kept_reach(served) if context_tokens is None else context_tokens
        inputs = _inputs(served, reach, static)
        if is_published(out) and not replace:
            if artifact.read_manifest(out).inputs != inputs:
                raise ArtifactError(
                    f"{out}: published from something else ({artifact.difference(out, inputs)}); --replace publishes again"
                )
            artifact.open_artifact(out, kind=KIND)
            return _measured(out, served, reach, is_new=False)
        if out.is_dir() and not is_published(out):
            out.rmdir()  # empty, or `_check_place` had refused it
        with artifact.create(out, inputs, replace=replace) as draft:
            _write(draft, served, reach, inputs.digest(), static)
        return _measured(out, served, reach, is_new=True)
    finally:
        served.close()


def _check_place(out: Path, runs: Sequence[Path]) -> None:
    """Raises: ConfigError: what is there is no publication, or would become part of a run."""
    if out.is_symlink() or (out.exists() and not is_published(out) and (out.is_file() or any(out.iterdir()))):
        raise ConfigError(f"{out}: holds something else, which is left alone; name a folder that is not there yet")
    for run in runs:
        if out.resolve().is_relative_to(run.resolve()):
            raise ConfigError(f"{out}: inside the run {run}; name a folder outside of it")


def _kept_reach(served: Served) -> int | None:
    """Tokens on either side that the catalogues keep; None: one does not say."""
    settings = [place.catalogue.manifest.inputs.config.get("catalogue") for place in _places(served)]
    reaches = [each.get("context_tokens") if isinstance(each, dict) else None for each in settings]
    return max(reach for reach in reaches if reach is not None) if reaches and None not in reaches else None


def _inputs(served: Served, reach: int | None, static: Path) -> artifact.Inputs:
    """Everything that is in the folder follows from this."""
    by_hand = {run.name: _labels_by_hand(run) for run in served.runs.values()}
    pages = {run.name: artifact.data_digest(_page(run)) for run in served.runs.values()}
    return artifact.Inputs(
        kind=KIND,
        config={
            "format": layout.FORMAT,
            "mohole": __version__,
            "context_tokens": reach,
            "app": artifact.tree_digest(static),
            "labels_by_hand": {name: artifact.digest_of(labels) for name, labels in by_hand.items()},
            "run_pages": pages,
        },
        seed=0,
        parents={
            f"{run.name}/{name}": manifest.digest
            for run in served.runs.values()
            for name, manifest in run.manifests.items()
        },
    )


def _labels_by_hand(run: OpenRun) -> list[Any]:
    return [[place.name, sorted(run.people.labels(place.dictionary).items())] for place in run.hookpoints.values()]


def _places(served: Served) -> list[OpenHookpoint]:
    return [place for run in served.runs.values() for place in run.hookpoints.values()]


def _write(folder: Path, served: Served, reach: int | None, edition: str, static: Path) -> None:
    _write_app(folder, static)
    with track("publish", sum(place.catalogue.n_latents for place in _places(served)), "features") as tracker:
        for run in served.runs.values():
            (folder / layout.DATA / run.name).mkdir(parents=True)
            (folder / layout.DATA / run.name / layout.PAGE_FILE).write_bytes(_page(run))
            for place in run.hookpoints.values():
                own = folder / layout.DATA / run.name / place.name
                (own / "features").mkdir(parents=True)
                _write_features(own, place, reach, tracker.advance)
                write_tables(own, place)
    index = _index(served, reach, edition)
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_app(folder: Path, static: Path) -> None:
    """The built files; the page is told that it is a published one, and its policy, which no host will send."""
    shutil.copytree(static, folder, ignore=shutil.ignore_patterns(_BUILT_FROM), dirs_exist_ok=True)
    page, mark = (folder / "index.html").read_text(encoding="utf-8"), '<meta charset="utf-8" />'
    if page.count(mark) != 1:
        raise StageError(
            f"{static / 'index.html'}: not the app of this mohole ({mark} is not in it once); `make web` builds it"
        )
    told = (
        f'{mark}\n    <meta http-equiv="Content-Security-Policy" content="{_POLICY}" />'
        f'\n    <meta name="mohole-published" content="./{INDEX_FILE}" />'
    )
    (folder / "index.html").write_text(page.replace(mark, told), encoding="utf-8")


def _write_features(folder: Path, place: OpenHookpoint, reach: int | None, advance: Callable[[int], None]) -> None:
    """The header, and the blocks it leads to."""
    catalogue = place.catalogue
    entries = np.zeros(catalogue.n_latents, dtype=HEADER)
    entries["count"], entries["sum"], entries["maximum"] = catalogue.counts, catalogue.sums, catalogue.maximum
    entries["family"], entries["x"], entries["y"] = catalogue.family, catalogue.xy[:, 0], catalogue.xy[:, 1]
    for number, first in enumerate(range(0, catalogue.n_latents, layout.LATENTS_PER_FILE)):
        with (folder / layout.features_file(number)).open("wb") as file:
            for low in range(first, min(first + layout.LATENTS_PER_FILE, catalogue.n_latents), FEATURES_PER_BLOCK):
                block = slice(low, min(low + FEATURES_PER_BLOCK, catalogue.n_latents))
                entries["offset"][block] = file.tell()
                entries["n_bytes"][block] = file.write(pack(block_with_texts(place, low, reach), layout.LEVEL))
                advance(block.stop - block.start)
    (folder / layout.HEADER_FILE).write_bytes(entries.tobytes())


def _page(run: OpenRun) -> bytes:
    page = run_page(run)
    return json_bytes(page.model_copy(update={"run": page.run.model_copy(update={"can_xray": False})}))


def _index(served: Served, reach: int | None, edition: str) -> dict[str, Any]:
    """`published.json`."""
    runs = []
    for run in served.runs.values():
        facts = run_facts(run)
        places = [each.model_dump() | _shapes(run.hookpoints[each.hookpoint]) for each in facts.hookpoints]
        runs.append(facts.model_dump() | {"can_xray": False, "hookpoints": places})
    return {
        "format": layout.FORMAT,
        "version": __version__,
        "edition": edition[:16],
        "context_tokens": reach,
        "runs": runs,
    }


def _shapes(place: OpenHookpoint) -> dict[str, Any]:
    """What a reader of the files has to know beforehand."""
    return {
        "n_promoted": place.catalogue.block(0)["vocabulary_id"].shape[1] // 2,
        "n_families": n_families(place),
        "has_map": places_of(place.catalogue) is not None,
    }


def _measured(out: Path, served: Served, reach: int | None, *, is_new: bool) -> Published:
    files = artifact.read_manifest(out).files
    data = {name: n for name, (n, _) in files.items() if name.startswith(f"{layout.DATA}/")}
    pages = sum(n for name, n in data.items() if name.endswith(layout.PAGE_FILE))
    return Published(
        path=out,
        is_new=is_new,
        n_features=sum(place.catalogue.n_latents for place in _places(served)),
        n_bytes=sum(data.values()) - pages,
        app_bytes=sum(n for name, (n, _) in files.items() if name not in data),
        context_tokens=reach,
        runs=tuple(served.runs),
    )
