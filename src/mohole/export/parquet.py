"""Two Parquet tables of one hookpoint: a line for each feature, and a line for each of its examples."""

from pathlib import Path
from typing import Any

from mohole.catalogue import Feature
from mohole.catalogue.evidence import TOP
from mohole.errors import ConfigError
from mohole.export.features import Exported, examples
from mohole.export.whole import whole_folder
from mohole.interpret import Label
from mohole.progress import track

_FEATURES_AT_ONCE = 1024
_FILES = ("features.parquet", "examples.parquet")


def export_parquet(exported: Exported, out: Path) -> Path:
    """Write `features.parquet` and `examples.parquet` into OUT/HOOKPOINT: both or neither, in place of an earlier export of it.

    Returns:
        That folder.

    Raises:
        ArtifactError: its place holds something else. ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("Parquet needs pyarrow, which is not here: pip install 'mohole[parquet]'") from None
    catalogue = exported.catalogue
    place = out / catalogue.hookpoint
    entries = pa.list_(pa.struct([("token", pa.string()), ("logit", pa.float32())]))
    schema = pa.schema(
        [("latent", pa.int64()), ("label", pa.string()), ("status", pa.string()), ("f1", pa.float64()),
         ("count", pa.int64()), ("density", pa.float64()), ("maximum", pa.float32()), ("mean", pa.float64()),
         ("family", pa.int32()), ("x", pa.float32()), ("y", pa.float32()),
         ("promoted", entries), ("suppressed", entries),
         ("neighbours", pa.list_(pa.struct([("latent", pa.int64()), ("cosine", pa.float32())]))),
         ("together", pa.list_(pa.struct([("latent", pa.int64()), ("n_together", pa.int64()), ("phi", pa.float32())])))]
    )  # fmt: skip
    example_schema = pa.schema(
        [("latent", pa.int64()), ("interval", pa.int16()), ("document", pa.int64()), ("token", pa.int64()),
         ("at", pa.int32()), ("tokens", pa.list_(pa.string())), ("activations", pa.list_(pa.float32()))]
    )  # fmt: skip
    with (
        whole_folder(place, _FILES) as folder,
        pq.ParquetWriter(folder / "features.parquet", schema, compression="zstd") as features_file,
        pq.ParquetWriter(folder / "examples.parquet", example_schema, compression="zstd") as examples_file,
        track(f"export {catalogue.hookpoint}", catalogue.n_latents, "features") as tracker,
    ):
        for first in range(0, catalogue.n_latents, _FEATURES_AT_ONCE):
            last = min(first + _FEATURES_AT_ONCE, catalogue.n_latents)
            batch = list(exported.features(first, last))
            places = catalogue.xy[first:last].tolist()
            lines = [_line(*each, *place) for each, place in zip(batch, places, strict=True)]
            features_file.write_table(pa.Table.from_pylist(lines, schema))
            shown = [line for feature, _ in batch for line in _examples(exported, feature)]
            examples_file.write_table(pa.Table.from_pylist(shown, example_schema))
            tracker.advance(last - first)
    return place


def _line(feature: Feature, label: Label, x: float, y: float) -> dict[str, Any]:
    return {
        "latent": feature.latent,
        "label": label.text,
        "status": label.status,
        "f1": label.f1 if label.is_scored else None,
        "count": feature.count,
        "density": feature.density,
        "maximum": feature.maximum,
        "mean": feature.mean,
        "family": feature.family,
        "x": x,
        "y": y,
        "promoted": [{"token": token, "logit": logit} for token, logit in feature.promoted],
        "suppressed": [{"token": token, "logit": logit} for token, logit in feature.suppressed],
        "neighbours": [{"latent": latent, "cosine": cosine} for latent, cosine in feature.neighbours],
        "together": [{"latent": latent, "n_together": n, "phi": phi} for latent, n, phi in feature.together],
    }


def _examples(exported: Exported, feature: Feature) -> list[dict[str, Any]]:
    """`interval` is null for the strongest."""
    return [
        {
            "latent": feature.latent,
            "interval": None if number == TOP else number,
            "document": example.document,
            "token": example.token,
            "at": example.token - example.start,
            "tokens": exported.pieces(example),
            "activations": list(example.activations),
        }
        for number, example in examples(feature)
    ]
