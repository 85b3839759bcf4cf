"""What is asked of the model while a dictionary is learned changes nothing but the record, and survives a kill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_resume import PowerError, Rows, make

from mohole import artifact
from mohole.config import Train
from mohole.dictionary import SparseAutoencoder, load_dictionary
from mohole.record import read_record
from mohole.train import train
from mohole.train.sweep import sweep


class Lengths:
    """Answers with the weights' own numbers: whoever asks at another step, or of other weights, gets another answer."""

    def __init__(self) -> None:
        self.n_asked = 0

    def __call__(self, dictionary: SparseAutoencoder) -> Mapping[str, float | None]:
        self.n_asked += 1
        torch.manual_seed(self.n_asked)  # a model that draws random numbers must not be noticed
        return {"ce_recovered": float(dictionary.W_enc.double().sum()), "excess_ce": None}

    def stamp(self) -> Mapping[str, Any]:
        return {"n_pairs": 7}


def trained(
    folder: Path, settings: Train, fails_at: int | None = None, in_model: Lengths | None = None
) -> dict[str, bytes]:
    inputs = artifact.Inputs(kind="dictionary", config=settings.model_dump(mode="json"), seed=5)
    with artifact.create(folder, inputs, resume=True) as draft:
        train(draft, Rows("a", 12, fails_at), settings, seed=5, in_model=in_model)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("log_every", "evaluate_every", "asked"),
    [(1, 4, [4, 8, 12]), (2, 3, [4, 6, 10, 12, 13]), (5, 4, [5, 10, 13]), (3, 1, [3, 6, 9, 12, 13]), (4, 100, [13])],
)
def test_it_is_asked_at_the_next_line_and_at_the_last(
    tmp_path: Path, log_every: int, evaluate_every: int, asked: list[int]
) -> None:
    steps = 13 if asked[-1] == 13 else 12
    settings = make("topk", steps=steps, log_every=log_every, evaluate_every=evaluate_every)
    trained(tmp_path / "sae", settings, in_model=Lengths())
    record = read_record(tmp_path / "sae" / "record.jsonl")
    assert [line["step"] for line in record if "ce_recovered" in line] == asked
    assert all(line["excess_ce"] is None for line in record if "ce_recovered" in line)
    # The last answer is about the dictionary that is saved.
    final: Any = load_dictionary(tmp_path / "sae")
    assert record[-1]["ce_recovered"] == float(final.W_enc.double().sum())


@pytest.mark.parametrize("variant", ["topk", "jumprelu"])
def test_only_the_record_knows_of_it(tmp_path: Path, variant: str) -> None:
    plain = trained(tmp_path / "plain", make(variant, evaluate_every=2))
    asked = trained(tmp_path / "asked", make(variant, evaluate_every=2), in_model=Lengths())
    never = trained(tmp_path / "never", make(variant, evaluate_every=0), in_model=Lengths())
    weights = ("dictionary.safetensors", "dictionary.json", "statistics.safetensors")
    for name in weights:
        assert plain[name] == asked[name] == never[name]
    assert set(asked) - set(plain) == {"in_model.json"}
    assert never["record.jsonl"] == plain["record.jsonl"]
    answers = {"ce_recovered", "excess_ce"}
    lines = [
        {key: value for key, value in line.items() if key not in answers}
        for line in read_record(tmp_path / "asked" / "record.jsonl")
    ]
    assert lines == read_record(tmp_path / "plain" / "record.jsonl")


def test_killed_and_gone_on_with_is_never_killed(tmp_path: Path) -> None:
    settings = make("topk", log_every=2, evaluate_every=3, average=0.9)
    whole = trained(tmp_path / "whole", settings, in_model=Lengths())
    for fails_at in (1, 4, 8, 11):
        with pytest.raises(PowerError):
            trained(tmp_path / str(fails_at), settings, fails_at, Lengths())
        assert trained(tmp_path / str(fails_at), settings, in_model=Lengths()) == whole, fails_at


def test_a_member_of_a_sweep_is_asked_as_it_is_alone(tmp_path: Path) -> None:
    settings = make("topk", evaluate_every=3)
    alone = trained(tmp_path / "alone", settings, in_model=Lengths())
    (tmp_path / "all").mkdir()
    in_model = Lengths()
    sweep(tmp_path / "all", Rows("a", 12), {"one": settings, "two": make("jumprelu")}, seed=5, in_model=in_model)
    for name in ("record.jsonl", "in_model.json", "dictionary.safetensors"):
        assert (tmp_path / "all" / "one" / name).read_bytes() == alone[name]
    assert in_model.n_asked > sum("ce_recovered" in line for line in read_record(tmp_path / "alone" / "record.jsonl"))
