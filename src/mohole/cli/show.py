"""`mohole show`: an artifact, a run folder or a model's hookpoints, for a person to read."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from mohole import artifact
from mohole.errors import ArtifactError
from mohole.progress import quantity

_MEANINGS = {
    "embed": "what a token's identity adds to the residual stream",
    "resid_pre": "the residual stream entering the layer",
    "attn_out": "what the layer's attention adds to it",
    "mlp_in": "what the layer's MLP reads, after its norm",
    "mlp_out": "what the layer's MLP adds to it",
    "resid_post": "the residual stream leaving the layer",
}


def show_hookpoints(model: str) -> None:
    """Load the model, prove its hookpoints and list them."""
    from mohole.model import load_model

    loaded = load_model(model)
    table = Table(
        title=f"{loaded.name}: {loaded.family}, {loaded.n_layers} layers, d_model {loaded.d_model}",
        title_justify="left",
    )
    table.add_column("hookpoint")
    table.add_column("layers")
    table.add_column("what it is")
    for kind, meaning in _MEANINGS.items():
        name, layers = (kind, "") if kind == "embed" else (f"{kind}.L", f"0-{loaded.n_layers - 1}")
        table.add_row(name, layers, meaning)
    Console().print(table)


def show_path(path: Path) -> None:
    """Describe the artifact at `path`, or the artifacts under it.

    Raises:
        ArtifactError: nothing there that mohole made, or a damaged artifact.
    """
    if (path / artifact.MANIFEST).is_file():
        _show_artifact(path)
        return
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; name an artifact or a run folder")
    manifests = sorted(path.rglob(artifact.MANIFEST))
    found = [manifest.parent for manifest in manifests if not any(part.startswith(".") for part in manifest.parts[:-1])]
    if not found:
        raise ArtifactError(f"{path}: no artifact in it; `mohole run RECIPE` makes them")
    table = Table("artifact", "kind", "bytes", "made by")
    for folder in found:
        manifest = artifact.read_manifest(folder)
        n_bytes = sum(size for size, _ in manifest.files.values())
        table.add_row(str(folder.relative_to(path)), manifest.kind, quantity(n_bytes), f"mohole {manifest.code}")
    Console().print(table)


def _show_artifact(path: Path) -> None:
    manifest = artifact.open_artifact(path)
    console = Console()
    console.print(f"[bold]{path}[/]: {manifest.kind}, made by mohole {manifest.code}, undamaged", highlight=False)
    table = Table("setting", "value", box=None, pad_edge=False)
    for key, value in sorted(artifact.flatten(dict(manifest.inputs.config)).items()):
        table.add_row(key, str(value))
    table.add_row("seed", str(manifest.inputs.seed))
    for name, digest in sorted(manifest.inputs.parents.items()):
        table.add_row(f"from {name}", digest)
    console.print(table)
    files = Table("file", "bytes", "xxh3-128", box=None, pad_edge=False)
    for name, (n_bytes, checksum) in manifest.files.items():
        files.add_row(name, f"{n_bytes:,}", checksum)
    console.print(files)
