"""The verbs about stores of rows: plan, shuffle, verify, export. Each reads its arguments and calls one function."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mohole.cli.options import Overrides
from mohole.config import Machine, Recipe, n_bytes, read_recipe
from mohole.errors import ArtifactError, ConfigError, DamageError

if TYPE_CHECKING:
    from mohole.store.store import Store

Place = Annotated[str, typer.Argument(metavar="STORE", help="A store of activations: a folder or a URL.")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="What all workers together may hold, such as 512MiB.")]
ExecutorName = Annotated[
    Literal["auto", "inline", "process", "ray"] | None, typer.Option("--executor", help="What runs the tasks.")
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster that runs already.")]
Processes = Annotated[int, typer.Option(min=0, help="Worker processes. 0: as many as there are cores.")]


def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML recipe.")],
    override: Overrides = [],  # noqa: B006
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of the corpus, where it is not there yet.")] = None,
    d_model: Annotated[int | None, typer.Option(min=1, help="Width of a row, where the model is not at hand.")] = None,
    hosts: Annotated[int, typer.Option(min=1, help="Machines with that memory and that speed.")] = 1,
    gbps: Annotated[float, typer.Option(help="What a machine reads, and writes, in GB/s.")] = 0.5,
    get_dollars: Annotated[float, typer.Option(help="Price of a million reads.")] = 0.4,
    put_dollars: Annotated[float, typer.Option(help="Price of a million writes.")] = 5.0,
    segment: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Shortest reads worth their while; 256KiB on a disk, 8MB on S3.")
    ] = None,
) -> None:
    """Show what harvesting and shuffling a recipe's rows takes, before anything runs."""
    from rich.console import Console

    from mohole.cli.tables import print_forecast
    from mohole.job.forecast import Prices, forecast

    settings = read_recipe(recipe, override)
    for name, value in (("gbps", gbps), ("get-dollars", get_dollars), ("put-dollars", put_dollars)):
        if not 0 <= value < 1e6 or (name == "gbps" and value == 0):
            raise ConfigError(f"--{name} {value}: not a number that can be meant; give one above 0")
    prices = Prices(hosts, gbps, get_dollars, put_dollars)
    segment_bytes = None if segment is None else n_bytes(segment)
    if segment_bytes == 0:
        raise ConfigError(f"--segment {segment}: reads of no bytes; 256KiB suits a disk, 8MB an object store")
    print_forecast(forecast(settings, prices, n_tokens=tokens, d_model=d_model, segment_bytes=segment_bytes), Console())


def shuffle(
    what: Annotated[str, typer.Argument(metavar="STORE|RECIPE", help="A store (folder or URL), or a recipe.")],
    out: Annotated[
        str | None,
        typer.Argument(metavar="[OUT]", help="Of a store: where the sorted one goes; `sorted` beside a folder."),
    ] = None,
    override: Annotated[
        list[str],
        typer.Option("-o", "--override", metavar="KEY=VALUE", help="Of a recipe: change one value; repeatable."),
    ] = [],  # noqa: B006
    memory: Memory = None,
    levels: Annotated[str, typer.Option(help="Passes before the last one, or auto.")] = "auto",
    order: Annotated[
        Literal["random", "text"] | None,
        typer.Option(
            help="Another order than that of the store's keys: text brings documents together, random parts them."
        ),
    ] = None,
    epoch: Annotated[int | None, typer.Option(min=0, max=2**16 - 1, help="Another random order.")] = None,
    executor: ExecutorName = None,
    address: Address = None,
    processes: Processes = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make it again where it was made with other settings.")
    ] = False,
) -> None:
    """Write the rows of a store in the order of their keys: a radix sort in as many passes as the memory asks for.

    A recipe needs none: its rows are sorted as they are harvested, and merged by the loader of the training.
    """
    if what.endswith(".toml"):
        if out is not None or order is not None:
            raise ConfigError(
                "OUT, --order: go with a store; a recipe's rows are shuffled into RUN/shuffled, at random"
            )
        _shuffle_recipe(Path(what), override, memory, levels, epoch, executor, address, processes, replace)
        return
    from mohole.job.rows import shuffle_store
    from mohole.store.store import Store

    if override:
        raise ConfigError(
            "-o: goes with a recipe; a store's shuffle is told by --memory, --levels, --order and --epoch"
        )
    if memory is not None:
        n_bytes(memory)  # its error is the better one
    machine = Machine(executor=executor or "auto", address=address, processes=processes, memory=memory or "2GiB")
    store = Store.open(what)
    target = out or _beside(what)
    if not shuffle_store(
        store, target, machine, levels=_levels(levels), order_kind=order, epoch=epoch, replace=replace
    ):
        typer.echo(f"{target}: there already, made from the same store and settings; nothing to do")
        return
    done = Store.open(target)
    n_shards = sum(len(shards) for shards in done.layout.shards.values())
    which = (
        "the order of the text" if done.facts.order.kind == "text" else f"random order (epoch {done.facts.order.epoch})"
    )
    typer.echo(f"{target}: {done.n_rows:,} rows of {', '.join(done.hookpoints)} in {which}, in {n_shards} shards")


def verify(
    store: Place,
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Take damaged shards away, so that the stage that made them makes them again."),
    ] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Test the order of a sorted store against chance, too.")
    ] = False,
) -> None:
    """Prove a store: every byte, every key, the order, and that nothing was lost, doubled or changed.

    Of a catalogue: every byte.
    """
    from rich.console import Console

    from mohole.cli.tables import print_certificate
    from mohole.storage import open_storage
    from mohole.store import seal
    from mohole.store.store import Store
    from mohole.store.verify import verify

    if _is_catalogue(Path(store)):
        _verify_catalogue(Path(store), for_stores=mend or statistics)
        return
    try:
        opened = Store.open(store)
        certificate = verify(opened)
    except DamageError as error:  # a small file, without which no shard can be judged
        if not mend:
            raise
        seal.reopen(open_storage(store))
        typer.echo(f"{error.name}: damaged; the command that made the store writes it again, and keeps the shards")
        return
    print_certificate(opened, certificate, Console())
    if certificate.damaged and mend:
        if not seal.mend(opened, certificate.damaged):
            typer.echo("taken away; nothing else needs these records, and the store is as good as before")
            return
        typer.echo(
            "taken away, and the store is unfinished again; the command that made it makes these shards again "
            "(all of them, where the shuffle took several passes)"
        )
        return
    if not certificate.holds:
        raise ArtifactError(f"{store}: {len(certificate.damaged) + len(certificate.wrong)} faults, listed above")
    if statistics:
        _test_order(opened)


def _test_order(opened: "Store") -> None:
    """Raises: ConfigError: not an order that could be random. ArtifactError: it does not look it."""
    from rich.console import Console

    from mohole.cli.tables import print_battery
    from mohole.store.uniformity import MIN_ROWS, uniformity
    from mohole.store.verify import tokens_in_order

    if opened.facts.order.kind != "random":
        raise ConfigError(
            f"{opened.url}: its rows are in the order of the text; --statistics asks whether an order is random"
        )
    if opened.facts.n_training < MIN_ROWS:
        raise ConfigError(
            f"{opened.url}: {opened.facts.n_training} rows to train on; --statistics judges an order of {MIN_ROWS} and more"
        )
    tokens = tokens_in_order(opened)[: opened.facts.n_training]  # held-out rows come after all others
    battery = uniformity(tokens, documents=opened.documents.of(tokens))
    print_battery(battery, Console())
    if battery.suspicious():
        raise ArtifactError(f"{opened.url}: its order is not a uniform shuffle; see the statistics above")


def _is_catalogue(path: Path) -> bool:
    """By files that only catalogues have: the manifest, which says it, may be what is damaged."""
    from mohole.catalogue.layout import FACTS_FILE, HEADER_FILE

    return any((path / name).is_file() for name in (FACTS_FILE, HEADER_FILE))


def _verify_catalogue(path: Path, *, for_stores: bool) -> None:
    """Raises: ConfigError: options that are for stores. ArtifactError: damage."""
    from mohole.catalogue.verify import verify_bytes

    if for_stores:
        raise ConfigError(f"{path}: a catalogue; --mend and --statistics are for stores of rows")
    verify_bytes(path)
    typer.echo(f"{path}: every byte is as it was written")


def export(
    what: Annotated[str, typer.Argument(metavar="STORE|RUN", help="A store, as a folder or URL, or a run's folder.")],
    to: Annotated[
        Literal["parquet", "safetensors", "neuronpedia", "html"],
        typer.Option(help="The format. Of a store: parquet, safetensors. Of a run: neuronpedia, parquet, html."),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Where the files go; STORE-FORMAT or RUN-FORMAT beside it."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="For neuronpedia: the model's id there; its own name.")] = None,
    hookpoint: Annotated[str | None, typer.Option(help="Of a run: this one only.")] = None,
) -> None:
    """Write a store's rows, or a run's features with their labels and examples, for other tools."""
    if "://" not in what and not Path(what).is_dir():
        raise ConfigError(f"{what}: no such folder; name a store or a run's folder")
    is_run = "://" not in what and not (Path(what) / "manifest.json").exists()
    allowed = ("neuronpedia", "parquet", "html") if is_run else ("parquet", "safetensors")
    if to not in allowed:
        raise ConfigError(f"--to {to}: a {'run' if is_run else 'store'} is exported to {', '.join(allowed)}")
    if is_run:
        for line in _export_run(Path(what), to, out or Path(f"{what.rstrip('/')}-{to}"), model, hookpoint):
            typer.echo(line)
        return
    from mohole.storage import open_storage
    from mohole.store.export import export
    from mohole.store.store import Store

    if out is None:
        folder = open_storage(what).local
        if folder is None:
            raise ConfigError(f"{what}: a URL, so a folder for the {to} files must be named behind it")
        out = folder.with_name(f"{folder.name}-{to}")
    assert to in ("parquet", "safetensors")
    n_files = export(Store.open(what), out, to)
    typer.echo(f"{out}: {n_files} {to} files")


def _export_run(run: Path, to: str, out: Path, model: str | None, hookpoint: str | None) -> Iterator[str]:
    """Raises: ConfigError: a hookpoint that the run has not."""
    from mohole.export.features import Exported, hookpoints_of
    from mohole.export.neuronpedia import export_neuronpedia
    from mohole.export.parquet import export_parquet

    there = hookpoints_of(run)
    if hookpoint is not None and hookpoint not in there:
        raise ConfigError(f"--hookpoint {hookpoint}: {run} has catalogues of {', '.join(there)}")
    if to == "html":
        from mohole import report

        out.mkdir(parents=True, exist_ok=True)
        report.write_page(out / "report.html", report.read_findings(run))
        yield f"{out / 'report.html'}: one page that needs nothing else"
        return
    for name in [hookpoint] if hookpoint else there:
        exported = Exported.open(run, name)
        if to == "parquet":
            folder = export_parquet(exported, out)
        else:
            folder = export_neuronpedia(exported, out, model=model or exported.model)
            if exported.n_layers is None:
                yield f"model.jsonl: layers 0, for {exported.model} is not on this machine; write its number there"
        yield f"{folder}: {exported.catalogue.n_latents:,} features"


def _shuffle_recipe(
    path: Path,
    override: list[str],
    memory: str | None,
    levels: str,
    epoch: int | None,
    executor: str | None,
    address: str | None,
    processes: int,
    replace: bool,
) -> None:
    from mohole import job

    extra = [f"machine.memory={memory}"] if memory else []
    extra += [f"machine.executor={executor}"] if executor else []
    extra += [f"machine.address={address}"] if address else []
    extra += [f"machine.processes={processes}"] if processes else []
    extra += [f"shuffle.epoch={epoch}"] if epoch is not None else []
    if (n_levels := _levels(levels)) is not None:
        extra.append(f"shuffle.levels={n_levels}")
    settings: Recipe = read_recipe(path, [*override, *extra, "shuffle.stored=true"])
    if not job.run_verb(settings, "shuffle", replace=replace, say=lambda line: typer.echo(line, err=True)):
        typer.echo("shuffle: there already, made from the same settings; nothing to do")


def _levels(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) > 8:
        raise ConfigError(f"--levels {text}: a number from 0 to 8, or auto")
    return int(text)


def _beside(store: str) -> str:
    """`runs/x/activations` is shuffled into `runs/x/sorted` (`shuffled` is the place of the recipe's own stage).

    Raises:
        ConfigError: a URL, beside which may be somebody else's.
    """
    if "://" in store:
        raise ConfigError(f"shuffle {store}: say where the sorted store goes: mohole shuffle {store} OUT")
    return str(Path(store).resolve().parent / "sorted")
