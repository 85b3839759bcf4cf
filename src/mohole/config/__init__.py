"""Recipes: TOML files into frozen, strict values, with overrides. No stage logic: what a field means is said here, once.

A recipe has one table per stage. An unknown key, a wrong type or an impossible value is a `ConfigError` that names the
key, the value and the nearest valid one.
"""

import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mohole.config.given import Given
from mohole.config.sweep import Sweep, check_members, member_tables
from mohole.config.synthetic import Synthetic
from mohole.config.tables import Count, Flag, Listed, Name, Number, Share, Table
from mohole.config.train import (
    L0,
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    Nonlinearity,
    ReLU,
    Sparsity,
    Tanh,
    TopK,
    Train,
)
from mohole.errors import ConfigError

__all__ = [
    "L0", "L1", "BatchTopK", "Catalogue", "Corpus", "DatasetCorpus", "Evaluate", "Gated", "Given", "Harvest", "JumpReLU", "Label",
    "Machine", "Model", "Nonlinearity", "PlantedCorpus", "ReLU", "Recipe", "Report", "Shuffle", "Sparsity", "Steer", "Suite",
    "Sweep", "Synthetic", "Table", "Tanh", "TextCorpus", "TopK", "Train", "Windows", "from_tables", "members", "n_bytes", "parse",
    "read_recipe", "settings",
]  # fmt: skip

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?(?:([kMGT])(i?))?B")
_MOST_SAID = 3
"""Faults of a recipe that are named at once."""


def _a_size(text: str) -> str:
    if _SIZE.fullmatch(text) is None:
        raise PydanticCustomError("size", "not a size; write such as 512MiB or 2GB")
    return text


Suite = Literal["sparse_probing", "absorption", "scr", "tpp", "ravel", "unlearning"]


class Machine(Table):
    """What a job may use, and where it runs. processes x threads never exceeds the cores."""

    processes: Annotated[int, Field(strict=True, ge=0)] = 0
    """Worker processes for independent tasks (one dictionary each). 0: one for every core, as many as there are tasks."""
    threads: Annotated[int, Field(strict=True, ge=0)] = 0
    """Threads of each process. 0: the cores divided by the processes."""
    executor: Literal["auto", "inline", "process", "ray"] = "auto"
    """What runs harvest and shuffle tasks: this process, worker processes, or Ray Core. `auto`: worker processes where there
    is work for more than one, else this process. The result is the same."""
    address: str | None = None
    """Of a Ray cluster that runs already. None: one of its own, on this machine."""
    watch: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the record of trainings goes besides record.jsonl: `tensorboard --logdir RUN/tensorboard` draws it while it grows;
    `wandb` keeps a run of Weights & Biases in RUN/wandb, and sends nothing anywhere unless your WANDB_MODE says `online`."""
    memory: Annotated[str, Field(strict=True), AfterValidator(_a_size)] = "2GiB"
    """What a shuffle's workers together, or the loader of a training, may hold."""


class Model(Table):
    """The language model under study."""

    path: Name = "planted"
    """`planted` for the built-in model, a folder in Hugging Face format, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the model computes in. float32 is fastest on most CPUs: bfloat16 products measured 4x slower without AMX."""
    device: str = "cpu"
    """Any torch device. `cuda` gives each worker of a harvest a GPU of its own (machine.processes as many as there are)."""
    allow_download: Flag = False
    """May the hub be asked for a model that is not on this machine? Nothing touches the network otherwise."""


class PlantedCorpus(Table):
    """Documents of the built-in world, generated at run time, with the truth about every token."""

    kind: Literal["planted"] = "planted"
    n_documents: Count = 6000
    """How many documents to write."""


class TextCorpus(Table):
    """Text of one's own, from files: read as a stream, so a text may be larger than the memory."""

    kind: Literal["text"] = "text"
    path: Name
    """A file, a folder, a pattern such as `books/*.txt`, or a URL (`s3://...`, `https://...`): UTF-8 text, JSON lines (.jsonl)
    or Parquet (.parquet), told by the name's end. .gz is unpacked, .zst where the package zstandard is installed."""
    separator: str = "\n\n"
    """What stands between two documents in a text file. An empty string makes each file one document."""
    field: Name = "text"
    """The key (JSON lines) or column (Parquet) that holds a document's text."""
    max_document_chars: Count = 1_000_000
    """A document longer than this is cut into several, after the last newline before the limit, else after the last space, else
    at the limit. A cut ends a document: no window spans it, and its parts may fall on both sides of the held-out split."""
    max_tokens: Count | None = None
    """Stop after the document in which this many tokens are reached. None: everything."""


class DatasetCorpus(Table):
    """A Hugging Face dataset, read as a stream. Needs the extra `datasets`."""

    kind: Literal["dataset"] = "dataset"
    name: Name
    """A hub id, or a folder or file that the package `datasets` can read."""
    subset: str | None = None
    """Which configuration of the dataset, where it has several."""
    split: Name = "train"
    """Which split of it."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    field: Name = "text"
    """The column that holds a document's text."""
    max_document_chars: Count = 1_000_000
    """As for text: a longer document is cut into several, at a newline or a space where it has one."""
    max_tokens: Count | None = None
    """Stop after the document in which this many tokens are reached. None: everything."""
    allow_download: Flag = False
    """May the hub be asked? Otherwise the dataset must be on this machine: a folder, a file, or in the local cache."""


Corpus = Annotated[PlantedCorpus | TextCorpus | DatasetCorpus, Field(discriminator="kind")]


class Windows(Table):
    """How documents are cut and which are kept away from training."""

    context: Annotated[int, Field(strict=True, ge=2)] = 128
    """Tokens of a window, a begin-of-text token included where the tokenizer has one. A window is run alone."""
    held_out: Share = 0.1
    """Share of documents never trained on: evaluation measures on them alone. Chosen by keyed hash of the document."""


class Harvest(Table):
    """Which activations to collect."""

    hookpoints: Annotated[tuple[str, ...], Field(min_length=1)] = ("resid_post.1",)
    """Names such as `resid_post.1`; TransformerLens names are understood. `mohole show hookpoints MODEL` lists them."""
    batch_tokens: Count = 8192
    """Tokens of one forward pass. Changes speed and memory, never the rows beyond rounding."""
    dtype: Literal["bfloat16", "float32", "float16", "int8"] = "bfloat16"
    """What rows are stored in. bfloat16 loses nothing of a bfloat16 model and 3e-6 of the variance of others; int8 has one
    scale for each dimension, from the first rows, half the bytes, and loses 1e-4 of the variance."""
    shard_tokens: Count = 131_072
    """Tokens that a harvest task runs and keeps in memory. A worker that dies loses at most these."""
    place: Name | None = None
    """A folder or URL (such as s3://bucket/name) that takes the rows. None: the run's folder."""


class Shuffle(Table):
    """The order of rows for training: the order of a keyed pseudo-random function of (document, position)."""

    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**16)] = 0
    """Another epoch is another order of the same rows."""
    stored: Flag = False
    """false: rows are sorted where they are made, and merged by the loader of the training, so that each byte is written once
    and read once. true: the order is written out as a store of its own, for rows that do not fit the loader's memory in few
    enough piles, or that are read by others."""
    levels: Annotated[int, Field(strict=True, ge=0, le=8)] | None = None
    """Passes of a stored shuffle before the last one. None: as few as the memory allows."""


class Evaluate(Table):
    """Quality on held-out documents."""

    max_documents: Count = 250
    """Held-out documents run through the model with the reconstruction spliced in, for CE and KL. Drawn by keyed hash."""
    max_tokens: Count = 60_000
    """... and tokens of them: a document may be a whole book."""
    batch_tokens: Count = 2048
    """Tokens of one forward pass. Changes speed and memory, never the numbers beyond rounding. Small batches hold windows of
    like length, so less padding: 8192 cost 5.6 CPU-seconds where 2048 costs 3.9. A GPU wants more."""
    task_prompts: Count = 100
    """Prompts of each task, the first ones."""
    max_rows: Count = 200_000
    """Held-out rows for FVU, L0, densities and recovery, drawn as whole documents by keyed hash."""
    dark_matter_rows: Count = 20_000
    """Held-out rows for what is unexplained: by class of token, and by a linear map fitted on half of their documents."""
    recovery: Flag = True
    """Score latents against the corpus's truth, where it has any."""
    selection_rows: Count = 60_000
    """Rows of training documents on which the best latent, neuron, threshold and probe of a label are chosen."""
    min_positives: Count = 8
    """A label with fewer marked tokens, to choose on or to score on, is listed as not scored."""
    min_language_tokens: Count = 5
    """A language counts for a concept when so many held-out tokens are the concept in that language."""
    suites: tuple[Suite, ...] = ()
    """Supervised and causal measurements that need labels, each of them opt-in: see docs/supervised-metrics.md."""
    suite_rows: Count = 4000
    """Rows that a suite looks at on each side of the split for one family of labels, as many of each class."""
    suite_windows: Count = 100
    """Windows on each side of the split that are run through the model for each edit of a suite."""
    unlearn: Name | None = None
    """The task that the suite `unlearning` makes the model forget; else the first that it can do well."""
    causal_labels: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 6
    """Labels of which the best latent is clamped and ablated in the model, to see whether it causes what it detects: the best
    found of each family in turn, words first. 0: none."""
    causal_tokens: Count = 800
    """Tokens of held-out text run through the model for each of them, once as it is and once for each of four edits. More make
    narrower intervals: their cost is a forward pass each."""


class Catalogue(Table):
    """What each latent fires on."""

    max_tokens: Count = 300_000
    """Tokens encoded for statistics and examples, drawn as whole documents by keyed hash."""
    top_examples: Listed = 12
    """Strongest distinct documents kept for a latent."""
    intervals: Listed = 5
    """Half-open activation intervals of equal width between 0 and the maximum, each with its own examples."""
    interval_examples: Listed = 3
    """Documents drawn from each interval, by keyed hash."""
    context_tokens: Listed = 16
    """Tokens shown on either side of an example's strongest token."""
    promoted: Listed = 8
    """Vocabulary entries listed as promoted and as suppressed."""


class Label(Table):
    """Names for latents, found by rule, without a language model."""

    max_tokens: Count = 120_000
    """Tokens the rules may look at (to find a rule) plus tokens used to score it, from different documents."""
    min_firings: Count = 8
    """A latent with fewer firings among the tokens looked at is left unlabelled, and says so."""
    firing_share: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0, lt=1.0)] = 0.3
    """Above this share of its maximum a latent counts as firing. 0 counts every positive activation, weak noise included."""


class Clamp(Table):
    """Hold one latent at a multiple of its maximum: x' = x + (c - f(x)) d."""

    hookpoint: str
    """Which dictionary the latent is of."""
    latent: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The latent by number, or None to take the best one for `concept`."""
    concept: str | None = None
    """A label of the corpus's truth, such as `landmark/golden_gate_bridge`. Of the six latents most active where it holds, the
    one is clamped that most often makes the model write the concept's words, and of equal ones the one that harms other text
    least: which latent detects a thing and which one causes it to be said are two questions."""
    times_max: Number = 1.0
    """Strength in units of the largest activation seen on the corpus. 0 ablates."""

    @model_validator(mode="after")
    def _one_source(self) -> "Clamp":
        if (self.latent is None) == (self.concept is None):
            raise ValueError("latent, concept: give exactly one of the two")
        return self


class Steer(Table):
    """One generation without and one with latents clamped."""

    prompts: tuple[str, ...] = ()
    """What the model continues. Empty: the built-in model's own question, else the first words of a held-out document."""
    clamp: Clamp | None = None
    """None: a latent of the first hookpoint, that of the twelve best labelled whose clamp does most and harms least."""
    max_new_tokens: Count = 40
    """Tokens written after each prompt, at most."""
    temperature: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.0)] = 0.0
    """0 always takes the likeliest token."""


class Report(Table):
    """The self-contained page."""

    max_features: Count = 400
    """Features of each hookpoint that can be browsed in the page, the best labelled first."""


class Recipe(Table):
    """A whole job: from a model and a text to a page of labelled, steerable features."""

    run: Name
    """The folder that holds every artifact of this job."""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """The one seed. Everything random is drawn from it and from what it is for."""
    machine: Machine = Machine()
    model: Model = Model()
    corpus: Corpus = PlantedCorpus()
    windows: Windows = Windows()
    harvest: Harvest = Harvest()
    rows_of: Name | None = None
    """The folder of another run, whose text and rows are used. None: this one makes its own, as [corpus] and [harvest] say."""
    shuffle: Shuffle = Shuffle()
    dictionary: tuple[Given, ...] = ()
    """Dictionaries that are there already, of any library; each stands where one would be trained. They say the hookpoints."""
    train: Train = Train()
    sweep: Sweep = Sweep()
    evaluate: Evaluate = Evaluate()
    catalogue: Catalogue = Catalogue()
    label: Label = Label()
    steer: Steer = Steer()
    report: Report = Report()
    synthetic: Synthetic = Synthetic()


def n_bytes(size: str) -> int:
    """Bytes of a size such as `512MiB`, `2 GB` or `1048576B`.

    >>> n_bytes("512MiB"), n_bytes("1.5 GB")
    (536870912, 1500000000)

    Raises:
        ConfigError: not a size.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ConfigError(f"{size!r}: not a size; write such as 512MiB or 2GB")
    number, prefix, binary = match.groups()
    power = 0 if prefix is None else "kMGT".index(prefix) + 1
    return int(float(number) * (1024 if binary else 1000) ** power)


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe and apply overrides such as `train.nonlinearity.k=32`.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value cannot be meant.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; the ones that come with mohole are in recipes/") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, not a recipe; name a .toml file, or use `mohole show {path}`") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); a recipe is a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return from_tables(tables, overrides)


def from_tables(tables: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Plain tables with overrides such as `train.nonlinearity.k=32`, checked.

    Raises:
        ConfigError: a key or value cannot be meant.
    """
    for override in overrides:
        _leave_kind(tables, override)
    for override in overrides:
        _apply(tables, override)
    return parse(tables)


def settings() -> dict[str, list[tuple[str, str, str]]]:
    """Every table of a recipe with its keys: (key, default as TOML, meaning). Nested tables as dotted keys."""
    tables: dict[str, list[tuple[str, str, str]]] = {"run, seed": []}
    for name, field in Recipe.model_fields.items():
        kinds = [kind for kind in _members(field.annotation) if issubclass(kind, Table)]
        if not kinds:
            tables["run, seed"].append((name, _as_toml(field), _sentence(field)))
        for kind in kinds:
            tag = kind.model_fields.get("kind")
            title = f"{name}, kind = {_as_toml(tag)}" if tag and len(kinds) > 1 else name
            title = f"[{name}]" if get_origin(field.annotation) is tuple else title  # one of several, as TOML writes it
            tables[title] = list(_keys(kind, ""))
    return tables


def _keys(kind: type[Table], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in kind.model_fields.items():
        inner = [member for member in _members(field.annotation) if issubclass(member, Table)]
        if inner:
            if not field.is_required() and field.default is None:
                yield f"{prefix}{name}", "none", _sentence(field)
            if len(inner) > 1:
                kinds = " | ".join(str(kind.model_fields["kind"].default) for kind in inner)
                default = "none" if field.default is None else json.dumps(field.default.kind)
                yield f"{prefix}{name}.kind", default, f"{kinds}. {_sentence(field)}"
            kinds_of: dict[tuple[str, str, str], list[str]] = {}
            for each in inner:
                for row in _keys(each, f"{prefix}{name}."):
                    kinds_of.setdefault(row, []).append(
                        str(each.model_fields["kind"].default) if len(inner) > 1 else ""
                    )
            for (key, default, meaning), kinds_with in kinds_of.items():
                of = "" if len(kinds_with) == len(inner) else f"{', '.join(kinds_with)}: "
                yield key, default, of + meaning
        elif name != "kind":
            yield f"{prefix}{name}", _as_toml(field), _sentence(field)


def _members(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]


def _as_toml(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "none" if value is None else json.dumps(value)


def _sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def parse(tables: dict[str, Any]) -> Recipe:
    """Check plain tables against the schema."""
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_one_line(error, tables)) from None
    if members(recipe):
        check_members(members(recipe))
    return _at_given_places(recipe)


def _at_given_places(recipe: Recipe) -> Recipe:
    """Dictionaries that are given say where rows are needed; nobody should have to say it twice."""
    places = tuple(given.hookpoint for given in recipe.dictionary)
    named = recipe.harvest.hookpoints
    if not places or places == named:
        return recipe
    if "hookpoints" in recipe.harvest.model_fields_set:
        raise ConfigError(
            f"harvest.hookpoints: {', '.join(named)}, and the dictionaries that are given are of {', '.join(places)}; "
            "leave it out"
        )
    harvest = recipe.harvest.model_copy(update={"hookpoints": places})
    return recipe.model_copy(update={"harvest": harvest})


def members(recipe: Recipe) -> dict[str, Train]:
    """The dictionaries of a sweep, by name: every combination of the lists in [sweep], then the [[train.dictionary]] tables.

    Raises:
        ConfigError: a setting of a member that cannot be meant; names the member and the key.
    """
    found = {}
    try:
        tables = member_tables(recipe.train, recipe.sweep)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name, table in tables.items():
        whole = {"run": recipe.run, "train": table}
        try:
            found[name] = Recipe.model_validate(whole).train
        except ValidationError as error:
            raise ConfigError(f"sweep, {name}: {_one_line(error, whole)}") from None
    return found


def _apply(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {override}: expected key=value, such as -o train.steps=300")
    *parents, last = key.strip().split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"-o {override}: {parent} is a value, not a table")
    tables[last] = _toml_value(text.strip())


def _leave_kind(tables: dict[str, Any], override: str) -> None:
    """`-o corpus.kind=dataset`: what the file says of the kind that is left, and the new one has no key for, goes with it.

    Before anything is overridden: other overrides are meant for the new kind, and a key that is none stays an error.
    """
    key, _, text = override.partition("=")
    *place, last = key.strip().split(".")
    table: Any = tables
    for part in place:
        table = table.get(part) if isinstance(table, dict) else None
    if last != "kind" or not isinstance(table, dict):
        return
    kinds = {each.model_fields["kind"].default: each for each in _tables_at(place) if "kind" in each.model_fields}
    before, after = (kinds.get(str(kind)) for kind in (table.get("kind"), _toml_value(text.strip())))
    if before is not None and after is not None:
        for name in before.model_fields.keys() - after.model_fields.keys():
            table.pop(name, None)


def _toml_value(text: str) -> Any:
    """A TOML value; what is not one is a plain string, so that paths and names need no quotes in a shell."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text  # a second line is not a second setting


def _one_line(error: ValidationError, tables: dict[str, Any]) -> str:
    errors = error.errors(include_url=False)
    said = dict.fromkeys(_said(each, tables) for each in errors[:_MOST_SAID])
    more = f" (and {len(errors) - _MOST_SAID} more)" if len(errors) > _MOST_SAID else ""
    return "; ".join(said) + more


def _said(error: Any, tables: dict[str, Any]) -> str:
    # A tagged union puts the tag into the path ("corpus", "text", "path"); the user never wrote it there.
    place = tuple(part for i, part in enumerate(error["loc"]) if not _is_tag(error["loc"], i, tables))
    return _explain(".".join(str(part) for part in place), place, error)


def _is_tag(loc: tuple[int | str, ...], index: int, tables: dict[str, Any]) -> bool:
    value: Any = tables
    for part in loc[:index]:
        if isinstance(value, dict) and part in value:
            value = value[part]
    if not isinstance(value, dict) or loc[index] in value:
        return False
    # Some unions have a default kind, which need not be written; the last part of a path is always a key.
    return value.get("kind", loc[index] if index < len(loc) - 1 else None) == loc[index]


def _explain(key: str, place: tuple[int | str, ...], error: Any) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            table, names = _fields_of(error["loc"][:-1])
            near = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
            prefix = "".join(f"{part}." for part in place[:-1])
            hint = f"did you mean {prefix}{near[0]}?" if near else f"it has {', '.join(names)}"
            return f"{key}: no such key in {table}; {hint}"
        case "missing":
            return f"{key}: needed, and not given"
        case "greater_than_equal":
            return f"{key}: {value!r} is too small; the smallest is {context['ge']}"
        case "less_than_equal":
            return f"{key}: {value!r} is too large; the largest is {context['le']}"
        case "greater_than":
            return f"{key}: {value!r} is too small; it must be more than {context['gt']}"
        case "less_than":
            return f"{key}: {value!r} is too large; it must be less than {context['lt']}"
        case "literal_error" | "union_tag_invalid":
            allowed = context.get("expected") or context.get("expected_tags", "")
            given = context.get("tag", value)
            names = [name.strip("' ") for name in allowed.replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {allowed}"
            return f"{key}: {given!r} is not one of the choices; {hint}"
        case "tuple_type" | "model_type" | "model_attributes_type":
            return f"{key}: {value!r}: {_wanted(kind, place, value)}"
        case "value_error":
            text = str(context["error"])
            return f"{key}.{text}" if key else text
        case _:
            return f"{key}: {value!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _wanted(kind: str, place: Sequence[int | str], value: Any) -> str:
    """A list or a table, where something else is given, as one would write it."""
    if kind == "tuple_type":
        example = f"; did you mean {json.dumps([value])}?" if isinstance(value, str | int | float) else ""
        return f"a list is needed{example}"
    names = [str(table.model_fields["kind"].default) for table in _tables_at(place) if "kind" in table.model_fields]
    if near := difflib.get_close_matches(str(value), names, n=1, cutoff=0.4):
        return f"a table is needed; did you mean {{ kind = {json.dumps(near[0])} }}?"
    return "a table is needed" + (f" with a kind, one of {', '.join(names)}" if names else "")


def _fields_of(place: Sequence[int | str]) -> tuple[str, list[str]]:
    """Name and keys of the table at `place`; of all its kinds where the place does not say which."""
    tables = _tables_at(place)
    names = sorted({name for table in tables for name in table.model_fields})
    return " or ".join(table.__name__ for table in tables), names


def _tables_at(place: Sequence[int | str]) -> list[type[Table]]:
    """The table at `place`, in which the tag of a union's kind may be a part; all its kinds where none is."""
    tables: list[type[Table]] = [Recipe]
    for part in place:
        tagged = [
            table for table in tables if "kind" in table.model_fields and table.model_fields["kind"].default == part
        ]
        if tagged and len(tables) > 1:
            tables = tagged
            continue
        annotations = [table.model_fields[str(part)].annotation for table in tables if str(part) in table.model_fields]
        tables = [table for annotation in annotations for table in _tables_in(annotation)]
    return tables


def _tables_in(annotation: Any) -> list[type[Table]]:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [table for argument in get_args(annotation) for table in _tables_in(argument)]
    return []
