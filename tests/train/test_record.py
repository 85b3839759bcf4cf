"""What a line of the record says: every term of the loss by its name, every site of several by its own."""

from typing import Any

import pytest
import torch
from tests.train.test_resume import Rows, make

from mohole.config import TopK
from mohole.dictionary import Crosscoder, CrossLayerTranscoder
from mohole.metrics import fvu
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

TERMS = ("mse_loss", "sparsity_loss", "auxk_loss", "pre_act_loss", "gate_loss")


def lines(variant: str, **others: Any) -> list[dict[str, Any]]:
    settings = make(variant, dead_after_rows=40, **others)
    sites = Sites(("a",), (12,))
    stream = Rows("a", 12)
    trainer = Trainer.start(settings, stream.rows(0, 300), stream.rows(0, 300), sites, sites, seed=3)
    found = []
    for step in range(8):
        rows = stream.rows(step * 32, 32)
        found.append(trainer.measure(trainer.step(rows, rows), rows))
    return found


@pytest.mark.parametrize(
    ("variant", "others", "present"),
    [
        ("topk", {"initial_l0": 3.0}, {"mse_loss", "auxk_loss"}),
        ("batchtopk", {}, {"mse_loss", "auxk_loss"}),
        ("relu", {"initial_l0": 1.0}, {"mse_loss", "sparsity_loss", "pre_act_loss"}),
        ("jumprelu", {"initial_l0": 1.0, "auxk": 0}, {"mse_loss", "sparsity_loss", "pre_act_loss"}),
        ("gated", {"initial_l0": 1.0, "auxk": 0}, {"mse_loss", "sparsity_loss", "gate_loss"}),
    ],
)
def test_the_terms_of_the_loss_add_up_to_it(variant: str, others: dict[str, Any], present: set[str]) -> None:
    found = lines(variant, **others)
    for line in found:
        assert sum(line[name] for name in TERMS) == pytest.approx(line["loss"], rel=1e-5)
    assert {name for name in TERMS if any(line[name] != 0 for line in found)} == present


@pytest.mark.parametrize("variant", ["crosscoder", "cross-layer"])
def test_every_site_has_its_own_fvu_in_any_units(variant: str) -> None:
    settings = make(
        variant, lr=1e-12, nonlinearity=TopK(k=3)
    )  # the weights stand still: those of the step are those after it
    names, width = (("a", "b"), 10) if variant == "crosscoder" else (("b", "a"), 12)
    widths = {"a": 12, "b": width}
    reads, writes = Sites(("a", "b"), (12, width)), Sites(names, tuple(widths[name] for name in names))
    own = {"a": Rows("a", 12).rows(0, 300), "b": Rows("b", width).rows(7, 300) * 50}  # b is much louder
    rows, targets = (torch.cat([own[name] for name in side.names], dim=1) for side in (reads, writes))
    trainer = Trainer.start(settings, rows, targets, reads, writes, seed=3)
    line = trainer.measure(trainer.step(rows, targets), targets)
    dictionary: Any = trainer.dictionary()
    if isinstance(dictionary, Crosscoder):
        output = dictionary.decode(dictionary.encode(rows))
    else:
        assert isinstance(dictionary, CrossLayerTranscoder)
        layers = dictionary.encode(torch.stack([own["a"], own["b"]]))
        output = torch.cat(list(dictionary.decode(layers)), dim=1)
    for name, low, high in zip(names, writes.bounds, writes.bounds[1:], strict=False):
        found = float(fvu(targets[:, low:high], output[:, low:high]))
        assert line[f"fvu/{name}"] == pytest.approx(found, rel=1e-4)
    assert min(line["fvu/a"], line["fvu/b"]) < line["fvu"] < max(line["fvu/a"], line["fvu/b"])
    # Each counts by its width.
    mean = (line["fvu/a"] * widths["a"] + line["fvu/b"] * widths["b"]) / sum(widths.values())
    assert line["fvu"] == pytest.approx(mean, rel=1e-3)


def test_one_site_is_not_named_again() -> None:
    assert not any(name.startswith("fvu/") for name in lines("topk")[0])
