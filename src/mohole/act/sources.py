"""What interventions may refer to: dictionaries with their catalogues' maxima, and named directions. Nothing is turned on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.act.direction import Direction
from mohole.act.interventions import Clamp, Intervention, Latent, Named
from mohole.act.usable import Swept, read_swept, swept_clamp
from mohole.catalogue import Catalogue
from mohole.dictionary.files import open_dictionary
from mohole.dictionary.places import places_of
from mohole.dictionary.readout import Steerable, name_of
from mohole.errors import ArtifactError, ConfigError, HookpointError, StageError
from mohole.model.hookpoints import parse_hookpoint


@runtime_checkable
class Maxima(Protocol):
    """What is needed of a catalogue: the largest activation of each latent seen on the corpus."""

    @property
    def hookpoint(self) -> str: ...

    @property
    def maximum(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Sources:
    """Dictionaries and directions by name. Nothing is read again once it is here."""

    dictionaries: Mapping[str, Steerable] = field(default_factory=dict)
    """By name: the folder in a run, else the hookpoint."""
    maxima: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Of each latent, by the dictionary's name."""
    directions: tuple[Direction, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the artifacts that they were read from, such as `resid_post.1/dictionary`. Empty for what is only in memory."""
    swept: tuple[Swept, ...] = ()
    """Sweeps of the run, which know which strengths are usable."""

    @classmethod
    def of(
        cls,
        dictionaries: Sequence[Steerable] = (),
        catalogues: Sequence[Maxima] = (),
        directions: Iterable[Direction] = (),
    ) -> "Sources":
        """Of what is open already. A catalogue goes with the dictionary of its hookpoint."""
        named = {name_of(dictionary): dictionary for dictionary in dictionaries}
        return cls(named, {catalogue.hookpoint: catalogue.maximum for catalogue in catalogues}, tuple(directions))

    @classmethod
    def of_run(
        cls, run: Path | str, names: Iterable[str] | None = None, directions: Iterable[Direction] = ()
    ) -> "Sources":
        """Of a run folder: its dictionaries, and the maxima of those that have a catalogue.

        Args:
            names: only these dictionaries. None: all.

        Raises:
            ArtifactError: no run there, no dictionary of such a name in it, or one that is damaged.
        """
        folder = Path(run)
        found = sorted(
            place.parent.parent.name
            for place in folder.glob(f"*/dictionary/{artifact.MANIFEST}")
            if not place.parent.parent.name.startswith(".")
        )
        if not found:
            raise ArtifactError(f"{folder}: no dictionary in it; name a run folder, as `mohole run RECIPE` makes it")
        wanted = found if names is None else list(dict.fromkeys(names))
        if missing := [name for name in wanted if name not in found]:
            raise ArtifactError(f"{folder}: has no dictionary {missing[0]}, only {', '.join(found)}")
        dictionaries, maxima, digests = {}, {}, {}
        for name in wanted:
            dictionaries[name] = open_dictionary(folder / name / "dictionary")
            digests[f"{name}/dictionary"] = artifact.read_manifest(folder / name / "dictionary").digest
            if (folder / name / "catalogue" / artifact.MANIFEST).is_file():
                maxima[name] = Catalogue.open(folder / name / "catalogue").maximum
                digests[f"{name}/catalogue"] = artifact.read_manifest(folder / name / "catalogue").digest
        return cls(dictionaries, maxima, tuple(directions), digests, read_swept(folder, digests))

    def name(self, of: Latent) -> str:
        """The name of the dictionary that a latent is of.

        Raises:
            ConfigError: there is none of this name, none at all, or several and it is not said which.
        """
        names = list(self.dictionaries)
        if of.hookpoint is None:
            if len(names) != 1:
                there = f"there are dictionaries at {', '.join(names)}" if names else "no dictionary is given"
                such = f", such as {names[0]}/{of.latent}" if names else ""
                raise ConfigError(f"latent {of.latent}: say at which hookpoint{such}; {there}")
            return names[0]
        if of.hookpoint in names:
            return of.hookpoint
        same = [name for name in names if _is_at(self.dictionaries[name], of.hookpoint)]
        if len(same) != 1:
            there = (
                f"several dictionaries write it: {', '.join(same)}"
                if same
                else f"only for {', '.join(names) or 'none'}"
            )
            raise ConfigError(f"{of.hookpoint}: no dictionary given for it, {there}")
        return same[0]

    def maximum(self, of: Latent) -> float:
        """A latent's largest activation on the corpus.

        Raises:
            ConfigError: no catalogue, or one of another dictionary. StageError: the latent was never seen active.
        """
        name = self.name(of)
        maxima, n_latents = self.maxima.get(name), self.dictionaries[name].n_latents
        if maxima is None:
            raise ConfigError(
                f"latent {of.latent}: times_max needs the catalogue of {name} for the maximum; "
                "give steer(..., catalogue=...), or a value"
            )
        if len(maxima) != n_latents:
            raise ConfigError(
                f"catalogue of {name}: made for {len(maxima)} latents, the dictionary has {n_latents}; "
                "give the catalogue built from this dictionary"
            )
        if not 0 <= of.latent < n_latents:
            raise ConfigError(f"latent {of.latent}: the dictionary at {name} has latents 0 to {n_latents - 1}")
        maximum = float(maxima[of.latent])
        if maximum <= 0:
            raise StageError(
                f"latent {of.latent} at {name}: never active on the corpus, so it has no maximum to multiply; "
                "clamp it by value, or choose a latent with a density above 0"
            )
        return maximum

    def objections(self, interventions: Sequence[Intervention]) -> tuple[str, ...]:
        """What the run's sweeps have to say against these strengths, a sentence each. Of what nobody has swept: nothing.

        Only clamps are looked up, each by itself, at the tokens that its sweep held it at. Errors as `maximum`.
        """
        said = []
        for each in interventions:
            if not self.swept or not isinstance(each, Clamp):
                continue
            name = self.name(Latent(each.latent, each.hookpoint))
            usable = swept_clamp(self.swept, replace(each, hookpoint=name))
            if usable is None:
                continue
            strength = each.times_max
            if strength is None:
                strength = each.strength / self.maximum(Latent(each.latent, name))
            if objection := usable.objection(strength):
                said.append(f"latent {each.latent} at {name}: {objection}")
        return tuple(said)

    def named(self, of: Named) -> tuple[Direction, ...]:
        """The directions of this name, at the hookpoint that is asked for or at all that they have.

        Raises:
            ConfigError: there is none.
        """
        same = [direction for direction in self.directions if direction.name == of.name]
        found = [direction for direction in same if of.hookpoint in (None, direction.hookpoint)]
        if not found:
            names = ", ".join(dict.fromkeys(direction.name for direction in self.directions))
            there = f"it is at {', '.join(each.hookpoint for each in same)}" if same else f"there are {names or 'none'}"
            at = "" if of.hookpoint is None else f" at {of.hookpoint}"
            raise ConfigError(
                f"direction {of.name}{at}: not given; {there}; --direction FILE (in Python directions=) gives them"
            )
        return tuple(found)


def _is_at(dictionary: Steerable, hookpoint: str) -> bool:
    """Is this hookpoint, in anyone's words, its only place to write, or for one that reads another, to read?"""
    try:
        wanted = str(parse_hookpoint(hookpoint))
    except HookpointError:
        return False
    own = getattr(dictionary, "hookpoint", None)
    reads, writes = ((own,), (own,)) if own is not None else places_of(dictionary)  # type: ignore[arg-type]
    return (wanted,) in (reads, writes)
