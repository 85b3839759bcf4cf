"""`mohole show`: an artifact, a run folder, a model's hookpoints or a recipe's settings, for a person to read."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mohole import artifact
from mohole.config import settings
from mohole.errors import ArtifactError, ConfigError
from mohole.progress import quantity
from mohole.visible import visible

_MEANINGS = {
    "embed": "what a token's identity adds to the residual stream",
    "resid_pre": "the residual stream entering the layer",
    "z": "the outputs of its heads side by side, before they are mixed; z.L.H is head H's",
    "attn_out": "what the layer's attention adds to it",
    "mlp_in": "what the layer's MLP reads, after its norm",
    "mlp_out": "what the layer's MLP adds to it",
    "resid_post": "the residual stream leaving the layer",
}


def show_hookpoints(model: str) -> None:
    """Load the model, prove its hookpoints and list them."""
    from mohole.model import load_model

    loaded = load_model(model)
    heads = "" if loaded.heads is None else f", {loaded.heads.n} heads of {loaded.heads.width}"
    table = Table(
        title=Text(
            visible(f"{loaded.name}: {loaded.family}, {loaded.n_layers} layers, d_model {loaded.d_model}{heads}")
        ),
        title_justify="left",
    )
    table.add_column("hookpoint")
    table.add_column("layers")
    table.add_column("what it is")
    for kind, meaning in _MEANINGS.items():
        if kind == "z" and loaded.heads is None:
            continue
        name, layers = (kind, "") if kind == "embed" else (f"{kind}.L", f"0-{loaded.n_layers - 1}")
        table.add_row(name, layers, meaning)
    Console().print(table)


def show_settings(table: str | None) -> None:
    """List a recipe's settings with their defaults and meanings, all of them or those of one table.

    Raises:
        ConfigError: no such table.
    """
    tables = settings()
    names = list(dict.fromkeys(part for title in tables for part in _names(title)))
    if table is not None and table not in names:
        near = difflib.get_close_matches(table, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"a recipe has {', '.join(names)}"
        raise ConfigError(f"show settings {table}: no such table; {hint}")
    console = Console()
    for name, rows in tables.items():
        if table is None or table in _names(name):
            shown = Table(title=Text(f"[{name}]", "bold"), title_justify="left", box=SIMPLE_HEAD, border_style="dim")
            shown.add_column("key", no_wrap=True)
            shown.add_column("default", overflow="fold")
            shown.add_column("what it means")
            for row in rows:
                shown.add_row(*map(Text, row))
            console.print(shown, width=min(console.width, 120))


def _names(title: str) -> list[str]:
    """What `show settings` may be asked for to see what stands under a title: `run, seed`, or `corpus, kind = "text"`."""
    return [part for part in title.split(", ") if "=" not in part]


def show_recipes(files: Sequence[Path]) -> None:
    """What each recipe is for, in its own words."""
    table = Table("recipe", "what it is for", box=SIMPLE_HEAD, border_style="dim")
    for file in files:
        table.add_row(Text(visible(str(file))), Text(visible(_first_comment(file))))
    console = Console()
    console.print(table)
    console.print(Text(visible(f"mohole run {files[0]} runs it; mohole show settings lists all that a recipe may say")))


def _first_comment(file: Path) -> str:
    """The lines at the head of a recipe that begin with #, up to an empty one."""
    lines = []
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return " ".join(lines)


def show_path(path: Path, latent: int | None = None) -> None:
    """Show what the artifact at `path` holds and where it came from; of a run, its artifacts; of recipes, what for.

    Raises:
        ArtifactError: nothing there that mohole made, or a damaged artifact.
        ConfigError: `latent` is none of the artifact's.
    """
    if (path / artifact.MANIFEST).is_file():
        _show_artifact(path, latent)
        return
    if path.suffix == ".toml" and path.is_file():
        show_recipes([path])
        return
    if not path.is_dir():
        what = "a file, not a folder" if path.is_file() else "no such folder"
        raise ArtifactError(f"{path}: {what}; name an artifact or a run folder")
    if latent is not None:
        raise ConfigError(f"{path}: no catalogue; a feature is shown by mohole show RUN/HOOKPOINT/catalogue LATENT")
    manifests = sorted(path.rglob(artifact.MANIFEST))
    found = [manifest.parent for manifest in manifests if not any(part.startswith(".") for part in manifest.parts[:-1])]
    if not found and (recipes := sorted(path.glob("*.toml"))):
        show_recipes(recipes)
        return
    if not found:
        raise ArtifactError(f"{path}: no artifact and no recipe in it; `mohole run RECIPE.toml` makes artifacts")
    from mohole.report import print_findings, read_findings  # here: it loads torch

    console = Console()
    if {"corpus", "evaluation", "labels"} <= {artifact.read_manifest(folder).kind for folder in found}:
        print_findings(read_findings(path), console)
    table = Table("artifact", "kind", "size", box=SIMPLE_HEAD, border_style="dim")
    for folder in found:
        manifest = artifact.read_manifest(folder)
        n_bytes = sum(size for size, _ in manifest.files.values()) + _bulk_bytes(folder, manifest)
        table.add_row(Text(visible(str(folder.relative_to(path)))), manifest.kind, f"{quantity(n_bytes)}B")
    console.print(table)
    page = path / "report.html"
    hint = f"mohole show {path}/ARTIFACT shows what is in one" + (
        f"; {page} is the whole as a page" if page.exists() else ""
    )
    console.print(Text(visible(hint)))


def _bulk_bytes(folder: Path, manifest: artifact.Manifest) -> int:
    """Of the files that the manifest does not list, such as a store's shards."""
    files = (file for name in manifest.bulk for file in [folder / name, *(folder / name).rglob("*")])
    return sum(file.stat().st_size for file in files if file.is_file())


def _show_artifact(path: Path, latent: int | None) -> None:
    from mohole.report import print_contents

    manifest = artifact.open_artifact(path)
    console = Console()
    print_contents(path, console, latent)
    if latent is not None:
        return
    console.print()
    table = Table("setting", "value", box=None, pad_edge=False, header_style="dim", style="dim")
    for key, value in sorted(artifact.flatten(dict(manifest.inputs.config)).items()):
        table.add_row(Text(visible(key)), Text(visible(str(value))))
    table.add_row("seed", str(manifest.inputs.seed))
    for name, digest in sorted(manifest.inputs.parents.items()):
        table.add_row(f"from {name}", digest)
    console.print(table)
    files = Table("file", "bytes", "xxh3-128", box=None, pad_edge=False, header_style="dim", style="dim")
    for name, (n_bytes, checksum) in manifest.files.items():
        files.add_row(Text(visible(name)), f"{n_bytes:,}", checksum)
    console.print(files)
    checked = "every checksum is right"
    if manifest.bulk:
        from mohole.store.store import Store

        Store.open(path).check_sizes()
        checked = "these checksums are right, and every shard is there in its size; mohole verify reads the shards too"
    console.print(f"{manifest.kind}, made by mohole {manifest.code}; {checked}", style="dim", highlight=False)
