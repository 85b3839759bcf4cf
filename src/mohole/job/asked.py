"""What a recipe asks for, read with hookpoints in mohole's words: the places, what is learned there, whose rows. No files."""

from pathlib import Path
from typing import assert_never

from mohole.config import Given, Recipe
from mohole.config.train import CrosscoderOf, CrossLayerOf, Learns, Sae, TranscoderOf
from mohole.errors import ConfigError
from mohole.model.hookpoints import parse_hookpoint


def hookpoints_of(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's hookpoints in mohole's words, each once.

    Raises:
        HookpointError: a name that no model has. ConfigError: the same place named twice.
    """
    names = [_canonical(name, recipe) for name in recipe.harvest.hookpoints]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"harvest.hookpoints: {twice[0]} is named twice; name each place once")
    return tuple(names)


def _canonical(name: str, recipe: Recipe) -> str:
    return str(parse_hookpoint(name, model=recipe.model.path))


def given_at(recipe: Recipe, hookpoint: str | None) -> Given:
    """The dictionary that the recipe gives for a hookpoint; None: the one of several hookpoints."""
    return next(
        given
        for given in recipe.dictionary
        if (given.hookpoint and _canonical(given.hookpoint, recipe)) == hookpoint  # "" is no name
    )


def rows_run(recipe: Recipe) -> Path:
    """The folder of the run whose corpus and rows are used: mostly the recipe's own."""
    return Path(recipe.run if recipe.rows_of is None else recipe.rows_of)


def learned(recipe: Recipe) -> Learns:
    """What the recipe learns, or what has been learned that it gives, with hookpoints in mohole's words.

    Raises:
        HookpointError: a name that no model has. ConfigError: one that is not harvested.
    """
    given = recipe.dictionary[0].learns if recipe.dictionary else None
    learns: Learns = (Sae() if given is None else given) if recipe.dictionary else recipe.train.learns
    harvested, setting = hookpoints_of(recipe), "dictionary.learns" if given else "train.learns"

    def known(name: str) -> str:
        canonical = _canonical(name, recipe)
        if canonical not in harvested:
            raise ConfigError(
                f"{setting}: {canonical} is not harvested; add it to harvest.hookpoints, which has {', '.join(harvested)}"
            )
        return canonical

    if recipe.train.live_rows and not isinstance(learns, Sae):
        raise ConfigError(f"train.live_rows: a {learns.kind} reads rows from a store; set live_rows = 0")
    match learns:
        case Sae():
            return learns
        case TranscoderOf(reads=reads, writes=writes):
            return learns.model_copy(update={"reads": known(reads), "writes": known(writes)})
        case CrosscoderOf(hookpoints=several):
            return learns.model_copy(update={"hookpoints": tuple(map(known, several))})
        case CrossLayerOf(reads=layers, writes=targets):
            return learns.model_copy(update={"reads": tuple(map(known, layers)), "writes": tuple(map(known, targets))})
        case _:
            assert_never(learns)


def asks_the_model(recipe: Recipe) -> bool:
    """Does its training look at what the model loses, as it goes on?"""
    return recipe.train.evaluate_every > 0 and isinstance(recipe.train.learns, Sae)
