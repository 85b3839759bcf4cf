"""What requests do to one run's model: its dictionaries, opened when they are first named, and plans that are made once."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from mohole.act import (
    NOTHING,
    Intervention,
    Latent,
    LatentReading,
    Plan,
    Sources,
    Variant,
    as_json,
    latents_in,
    make_plan,
    read_latent,
)
from mohole.artifact import digest_of
from mohole.errors import ArtifactError
from mohole.model import LanguageModel
from mohole.serve.runs import OpenRun

_MOST_PLANS = 256


class RunSteering:
    """Of one run and its model. For one thread."""

    def __init__(self, run: OpenRun, model: LanguageModel) -> None:
        self._run, self._model = run, model
        self._opened: dict[str, Sources] = {}
        self._plans: OrderedDict[str, tuple[Plan, tuple[str, ...]]] = OrderedDict()

    def plan(self, variant: Variant | None, interventions: Sequence[Intervention]) -> tuple[Plan, tuple[str, ...]]:
        """A variant's interventions, then these; and what sweeps of the run have to say against their strengths.

        Raises:
            ArtifactError: the variant is of other dictionaries than those that are served. Others as `make_plan`.
        """
        whole = (*(variant.interventions if variant else ()), *interventions)
        if not whole:
            return NOTHING, ()
        own = variant.usable.objection(1.0) if variant and variant.usable else None
        against = () if own is None or variant is None else (f"variant {variant.name}: {own}",)
        asked = interventions if variant and variant.usable else whole
        plan, objections = self._made(variant, whole, asked)
        return plan, (*against, *objections)

    def _made(
        self, variant: Variant | None, whole: Sequence[Intervention], asked: Sequence[Intervention]
    ) -> tuple[Plan, tuple[str, ...]]:
        """Once, of equal ones. Args: asked: those whose strengths nobody has judged as a whole."""
        key = digest_of([as_json(whole), len(asked), sorted(variant.needs.items()) if variant else []])
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        sources = self._sources(latents_in(whole))
        if variant is not None:
            for place, digest in variant.needs.items():
                if sources.digests.get(place) != digest:
                    raise ArtifactError(f"{variant.name}: {place} was made again; start the server again")
        self._plans[key] = made = make_plan(self._model, whole, sources), sources.objections(asked)
        if len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return made

    def readings(self, latents: Sequence[Latent]) -> tuple[LatentReading, ...]:
        """Latents as an engine reads them. Errors as `read_latent`."""
        if not latents:
            return ()
        sources = self._sources(latents)
        return tuple(read_latent(self._model, of, sources) for of in latents)

    def _sources(self, latents: Iterable[Latent]) -> Sources:
        """The dictionaries of these latents; all where one of them does not say its folder."""
        there = {place.parent.parent.name for place in self._run.folder.glob("*/dictionary/manifest.json")}
        named = {of.hookpoint for of in latents}
        wanted = sorted(there if not named <= there else {name for name in named if name})
        for name in wanted:
            if name not in self._opened:
                self._opened[name] = self._open(name)
        found = [self._opened[name] for name in wanted]
        return Sources(
            {name: dictionary for each in found for name, dictionary in each.dictionaries.items()},
            {name: maxima for each in found for name, maxima in each.maxima.items()},
            (),
            {place: digest for each in found for place, digest in each.digests.items()},
            tuple(swept for each in found for swept in each.swept),
        )

    def _open(self, name: str) -> Sources:
        sources = Sources.of_run(self._run.folder, [name])
        place = self._run.hookpoints.get(name)
        if place is not None and sources.digests[f"{name}/dictionary"] != place.dictionary:
            raise ArtifactError(f"{name}: its dictionary was made again; start the server again")
        return sources
