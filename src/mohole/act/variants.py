"""Named variants of a run's model: interventions kept under a name, with the digests of what they mean. One JSON file each.

    RUN/variants/NAME.json    sealed with its own checksum; directions stand in it with their numbers, so nothing else is needed

A latent's number means nothing without its dictionary, nor a strength in maxima without its catalogue: a variant names both by
the digests of their manifests, and is refused once one of them is another. Once it has been swept, the range of strengths at
which it is usable stands in it, with the rule and the evidence.
"""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from mohole import artifact
from mohole.act.direction import Direction
from mohole.act.interventions import Intervention, Latent, Named, Vector, latents_in
from mohole.act.parsing import as_json, parse_interventions
from mohole.act.planning import make_plan
from mohole.act.sources import Sources
from mohole.act.terms import Plan
from mohole.act.usable import StrengthWarning, UsableRange, usable_json, usable_of
from mohole.errors import ArtifactError, ConfigError
from mohole.model import LanguageModel
from mohole.visible import visible

FOLDER = "variants"
_FORMAT = 2
_READ = (1, 2)
"""Format 1 had no `usable`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Variant:
    """Interventions under a name, as they were saved."""

    name: str
    interventions: tuple[Intervention, ...]
    needs: dict[str, str]
    """Digests of the manifests it belongs to, by their place in the run, such as `resid_post.1/dictionary`."""
    usable: UsableRange | None = None
    """At how many times its own strength it is usable. None: it was not swept."""

    @property
    def dictionaries(self) -> tuple[str, ...]:
        """Names of those it is of."""
        return tuple(dict.fromkeys(place.split("/")[0] for place in self.needs))


def save_variant(
    run: Path | str,
    name: str,
    interventions: Sequence[Intervention],
    model: LanguageModel,
    *,
    directions: Sequence[Direction] = (),
    replace_it: bool = False,
) -> Variant:
    """Keep interventions under a name. They are worked out for the model first: what cannot be meant is not kept.

    Raises:
        ConfigError: a name that is none, one that is taken, nothing to do; or as `make_plan`.
        ArtifactError: no run there.
    """
    run = Path(run)
    if not interventions:
        raise ConfigError(f"variant {name}: no intervention; give one, such as --clamp 1234=8x")
    file = _file(run, name)
    if file.exists() and not replace_it:
        raise ConfigError(f"{file}: there already; --replace puts the new one in its place, or choose another name")
    sources = Sources.of_run(run, directions=directions)
    said = tuple(filled_in(each, sources) for each in interventions)
    make_plan(model, said, sources)
    variant = Variant(name, said, digests_of(said, sources))
    _write(file, variant)
    return variant


def keep_range(run: Path | str, name: str, usable: UsableRange) -> None:
    """Put what a sweep of a variant has found into it. Errors as `open_variant`."""
    variant = open_variant(run, name)
    _write(_file(Path(run), name), replace(variant, usable=usable))


def _write(file: Path, variant: Variant) -> None:
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "name": variant.name,
        "interventions": as_json(variant.interventions),
        "needs": variant.needs,
        "usable": None if variant.usable is None else usable_json(variant.usable),
    }
    file.parent.mkdir(exist_ok=True)
    draft = file.with_name(f".{file.name}.partial")
    draft.write_bytes(artifact.sealed(facts))
    artifact.sync(draft)
    os.replace(draft, file)


def open_variant(run: Path | str, name: str) -> Variant:
    """A variant that still means what it meant.

    Raises:
        ConfigError: there is none of this name.
        ArtifactError: it is damaged, or a dictionary or catalogue that it belongs to is gone or has been made again.
    """
    run = Path(run)
    variant = _read(_file(run, name), run)
    for place, digest in variant.needs.items():
        now = artifact.read_manifest(run / place).digest
        if now != digest:
            raise ArtifactError(
                f"{_file(run, name)}: saved for another {place} than the one that is there now, whose latents are others; "
                f"save it again: mohole steer {run} save {name} ... --replace"
            )
    return variant


def plan_variant(run: Path | str, name: str, model: LanguageModel) -> Plan:
    """A variant, worked out for the run's model. Errors as `open_variant` and `make_plan`.

    Warns:
        StrengthWarning: a sweep found its strength outside of the usable range.
    """
    variant = open_variant(run, name)
    for objection in objections(run, variant):
        warnings.warn(objection, StrengthWarning, stacklevel=2)
    return make_plan(model, variant.interventions, _sources(run, variant))


def objections(run: Path | str, variant: Variant) -> tuple[str, ...]:
    """What sweeps have to say against a variant's strength, a sentence each: its own, else those of the latents it clamps."""
    if variant.usable is None:
        return _sources(run, variant).objections(variant.interventions)
    said = variant.usable.objection(1.0)
    return () if said is None else (f"variant {variant.name}: {said}",)


def _sources(run: Path | str, variant: Variant) -> Sources:
    return Sources.of_run(run, variant.dictionaries) if variant.needs else Sources()


def variant_names(run: Path | str) -> tuple[str, ...]:
    """The variants of a run, in order of their names; whether they still hold is `open_variant`'s to say."""
    return tuple(sorted(file.stem for file in (Path(run) / FOLDER).glob("*.json") if _NAME.fullmatch(file.stem)))


def remove_variant(run: Path | str, name: str) -> None:
    """Raises: ConfigError: there is none of this name."""
    file = _file(Path(run), name)
    if not file.is_file():
        raise _absent(Path(run), name)
    file.unlink()


def _file(run: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"variant {visible(name)[:80]!r}: no name; letters, digits, dots, - and _, not beginning with a mark, 64 at most"
        )
    if not run.is_dir():
        raise ArtifactError(f"{run}: {'a file' if run.exists() else 'no such folder'}; name a run's folder")
    return run / FOLDER / f"{name}.json"


def _absent(run: Path, name: str) -> ConfigError:
    there = ", ".join(variant_names(run))
    return ConfigError(
        f"variant {name}: {run} has none of this name; " + (f"there are {there}" if there else "it has none")
    )


def _read(file: Path, run: Path) -> Variant:
    try:
        facts = artifact.unsealed(file.read_bytes())
    except FileNotFoundError:
        raise _absent(run, file.stem) from None
    if facts is None:
        raise ArtifactError(f"{file}: damaged, its checksum is wrong; remove it and save it again")
    if facts.get("format") not in _READ:
        raise ArtifactError(
            f"{file}: of format {facts.get('format')!r}; this mohole reads formats {_READ[0]} to {_READ[-1]}"
        )
    try:
        raw = facts.get("usable")
        usable = None if raw is None else usable_of(raw, str(file))
        return Variant(str(facts["name"]), parse_interventions(facts["interventions"]), dict(facts["needs"]), usable)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{file}: not a variant mohole can read ({error}); remove it and save it again") from None


def digests_of(interventions: Sequence[Intervention], sources: Sources) -> dict[str, str]:
    """Of the dictionaries and catalogues that interventions are of, by their place in the run."""
    used = {of.hookpoint for of in latents_in(interventions)}
    return {place: digest for place, digest in sources.digests.items() if place.split("/")[0] in used}


def filled_in(value: Any, sources: Sources) -> Any:
    """An intervention with the dictionary of every latent said, and named directions as their numbers."""
    if isinstance(value, Named):
        found = sources.named(value)
        if len(found) > 1:
            raise ConfigError(
                f"direction {value.name}: is at {', '.join(each.hookpoint for each in found)}; a variant keeps one of them, so "
                "say which, as NAME@HOOKPOINT"
            )
        return Vector(tuple(found[0].vector.double().tolist()), found[0].hookpoint)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {each.name: filled_in(getattr(value, each.name), sources) for each in fields(value)}
    if "latent" in changed and "hookpoint" in changed:
        changed["hookpoint"] = sources.name(Latent(changed["latent"], changed["hookpoint"]))
    return replace(value, **changed)
