"""A published folder read as docs/formats.md says, without the code that writes it or the app that reads it."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import zstandard

HEADER = np.dtype(
    [("count", "<i8"), ("sum", "<f8"), ("maximum", "<f4"), ("family", "<i4"), ("x", "<f4"), ("y", "<f4"), ("offset", "<u8"),
     ("n_bytes", "<u4"), ("zero", "<u4")]
)  # fmt: skip
STATUSES = ("good", "partial", "none", "few", "dead", "person")


def unpacked(frame: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return safetensors.numpy.load(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame)).read())


def texts(block: dict[str, Any], name: str) -> list[str]:
    ends = np.cumsum(block[f"{name}_length"].astype(int))
    whole = block[f"{name}_bytes"].tobytes()
    return [whole[end - n : end].decode() for end, n in zip(ends, block[f"{name}_length"].astype(int), strict=True)]


def number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class Place:
    """One hookpoint of a published folder."""

    def __init__(self, folder: Path, run: str, hookpoint: str) -> None:
        index = json.loads((folder / "published.json").read_text())
        listed = next(each for each in index["runs"] if each["run"] == run)["hookpoints"]
        self.facts = next(each for each in listed if each["hookpoint"] == hookpoint)
        self.folder = folder / "data" / run / hookpoint
        self.header = np.frombuffer((self.folder / "header.bin").read_bytes(), dtype=HEADER)

    def block(self, latent: int) -> dict[str, Any]:
        entry = self.header[latent]
        file = (self.folder / f"features/{latent // 4096:06}.bin").read_bytes()
        return unpacked(file[entry["offset"] : entry["offset"] + entry["n_bytes"]])

    def table(self, name: str) -> list[dict[str, Any]]:
        starts = np.frombuffer((self.folder / f"{name}.at").read_bytes(), dtype="<u8").astype(int)
        whole = (self.folder / f"{name}.bin").read_bytes()
        assert starts[-1] == len(whole)
        return [unpacked(whole[a:b]) for a, b in pairwise(starts)]

    def column(self, table: str, name: str) -> np.ndarray[Any, Any]:
        return np.concatenate([block[name] for block in self.table(table)])

    def line(self, latent: int) -> dict[str, Any]:
        lines, entry = self.table("lines")[latent // 512], self.header[latent]
        return self._line(
            lines, latent % 512, latent, int(entry["count"]), float(entry["maximum"]), int(entry["family"])
        )

    def _line(
        self, block: dict[str, Any], row: int, latent: int, count: int, maximum: float, family: int
    ) -> dict[str, Any]:
        return {
            "latent": latent,
            "label": texts(block, "label")[row],
            "status": STATUSES[block["status"][row]],
            "f1": number(block["f1"][row]),
            "count": count,
            "density": count / self.facts["n_tokens"],
            "maximum": maximum,
            "family": None if family < 0 else family,
        }

    def family(self, family: int) -> dict[str, Any]:
        block, row = self.table("families")[family // 32], family % 32
        first = int(block["n_members"][:row].sum())
        members = [
            self._line(block, i, int(block["latent"][i]), int(block["count"][i]), float(block["maximum"][i]), family)
            for i in range(first, first + int(block["n_members"][row]))
        ]
        return {"family": family, "size": int(block["size"][row]), "members": members}

    def feature(self, latent: int) -> dict[str, Any]:
        """As GET /features/{latent} answers."""
        entry, block, row = self.header[latent], self.block(latent), latent % 32
        count, maximum, n = int(entry["count"]), float(entry["maximum"]), self.facts["n_promoted"]
        labels, pieces = texts(block, "label_text"), texts(block, "piece")
        f1, precision, recall = map(number, block["label_score"][row])
        n_positive, n_scored = (None if each < 0 else int(each) for each in block["label_count"][row])
        examples = self._examples(block, row, maximum, pieces)

        def edges(n_bins: int) -> list[float]:
            return [maximum * i / n_bins for i in range(n_bins)] + [maximum]

        def of(interval: int) -> list[dict[str, Any]]:
            return [example for where, example in examples if where == interval]

        def vocabulary(first: int) -> list[dict[str, Any]]:
            both = zip(block["vocabulary_piece"][row], block["vocabulary_logit"][row], strict=True)
            return [{"token": pieces[i], "logit": float(x)} for i, x in list(both)[first : first + n] if i >= 0]

        def others(name: str) -> list[tuple[int, int]]:
            return [(i, int(other)) for i, other in enumerate(block[name][row]) if other >= 0]

        widths = block["interval_count"][row].tolist()
        bins = block["histogram"][row].tolist()
        return {
            "latent": latent, "hookpoint": self.facts["hookpoint"],
            "label": {
                "text": labels[block["label"][row]], "status": STATUSES[block["label_status"][row]],
                "kind": labels[block["label_kind"][row]], "f1": f1, "precision": precision, "recall": recall,
                "n_positive": n_positive, "n_scored": n_scored,
            },
            "count": count, "n_tokens": self.facts["n_tokens"], "density": count / self.facts["n_tokens"], "maximum": maximum,
            "mean": float(entry["sum"]) / max(count, 1), "is_dead": count == 0,
            "histogram": {"edges": edges(len(bins)), "counts": bins} if count else None,
            "top": of(-1),
            "intervals": [
                {"low": edges(len(widths))[i], "high": edges(len(widths))[i + 1], "count": width, "examples": of(i)}
                for i, width in enumerate(widths)
            ] if count else [],
            "promoted": vocabulary(0), "suppressed": vocabulary(n),
            "neighbours": [
                {"latent": other, "label": labels[block["neighbour_label"][row][i]], "cosine": float(block["cosine"][row][i])}
                for i, other in others("neighbour")
            ],
            "together": [
                {"latent": other, "label": labels[block["together_label"][row][i]],
                 "n_together": int(block["n_together"][row][i]), "phi": float(block["phi"][row][i])}
                for i, other in others("together")
            ],
            "family": None if entry["family"] < 0 else self.family(int(entry["family"])),
        }  # fmt: skip

    def _examples(
        self, block: dict[str, Any], row: int, maximum: float, pieces: list[str]
    ) -> list[tuple[int, dict[str, Any]]]:
        lengths, fires = block["example_length"].astype(int), block["n_firings"].astype(int)
        spelt = block["text_piece"].astype(int) + 256 * block["text_piece_256"].astype(int)
        ends, fired = np.cumsum(lengths), np.cumsum(fires)
        first = int(block["n_examples"][:row].astype(int).sum())
        found = []
        for i in range(first, first + int(block["n_examples"][row])):
            activations = [0.0] * int(lengths[i])
            for j in range(fired[i] - fires[i], fired[i]):
                activations[block["firing_place"][j]] = float(block["firing_share"][j]) * maximum
            example = {
                "document": int(block["example_document"][i]),
                "token": int(block["example_token"][i]),
                "at": int(block["example_before"][i]),
                "tokens": [pieces[piece] for piece in spelt[ends[i] - lengths[i] : ends[i]]],
                "activations": activations,
                "begins_document": bool(block["example_edges"][i] & 1),
                "ends_document": bool(block["example_edges"][i] & 2),
            }
            found.append((int(block["example_interval"][i]), example))
        return found
