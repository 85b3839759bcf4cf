"""Files of directions: each row where it belongs, written and read back, and what hostile or foreign bytes do."""

import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.act.tiny import D_MODEL, HOOKPOINT, prompt, tiny_model

from mohole.act import Add, Direction, Named, Sources, difference_of_means, make_plan, read_directions, write_directions
from mohole.act.gguf import gguf_bytes, read_gguf
from mohole.act.steering import Steered
from mohole.errors import ArtifactError, ConfigError, MoholeError

DRAW = torch.Generator().manual_seed(3)


def row(n: int = 6) -> torch.Tensor:
    return torch.randn(n, generator=DRAW)


def at(found: tuple[Direction, ...]) -> dict[str, list[float]]:
    return {direction.hookpoint: direction.vector.tolist() for direction in found}


@pytest.mark.parametrize("ending", ["safetensors", "gguf"])
def test_directions_are_read_back_where_they_were_written(tmp_path: Path, ending: str) -> None:
    given = [Direction(f"resid_post.{layer}", row(), "calm", "of a test") for layer in (1, 2, 11)]
    write_directions(tmp_path / f"x.{ending}", given)
    found = read_directions(tmp_path / f"x.{ending}")
    assert at(found) == at(tuple(given))
    assert {direction.name for direction in found} == {"calm"}
    assert {each.name for each in read_directions(tmp_path / f"x.{ending}", name="other")} == {"other"}


def test_a_control_vector_has_the_bytes_of_the_format(tmp_path: Path) -> None:
    """By hand, from the format's own page: magic, version, counts, keys, tensor infos, data at a multiple of 32."""

    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word)) + word.encode()

    head = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 1)
        + text("general.architecture")
        + struct.pack("<I", 8)
        + text("controlvector")
    )
    head += text("direction.2") + struct.pack("<IQIQ", 1, 3, 0, 0)
    data = head + b"\0" * (-len(head) % 32) + struct.pack("<3f", 1.0, -2.0, 0.5)
    (tmp_path / "x.gguf").write_bytes(data)
    assert at(read_directions(tmp_path / "x.gguf")) == {"resid_post.2": [1.0, -2.0, 0.5]}
    own = gguf_bytes(
        {"general.architecture": "controlvector"}, {"direction.2": np.array([1.0, -2.0, 0.5], dtype=np.float32)}
    )
    assert own[: len(data)] == data
    assert set(own[len(data) :]) <= {0}


def test_a_half_precision_tensor_and_every_kind_of_key_are_read() -> None:
    keys = [
        ("a", 4, struct.pack("<I", 7)),
        ("b", 9, struct.pack("<IQ", 5, 2) + struct.pack("<2i", 1, -1)),
        ("c", 7, b"\1"),
    ]
    data = b"GGUF" + struct.pack("<IQQ", 2, 1, 3)
    for name, kind, value in keys:
        data += struct.pack("<Q", 1) + name.encode() + struct.pack("<I", kind) + value
    data += struct.pack("<Q", 1) + b"t" + struct.pack("<IQQIQ", 2, 2, 1, 1, 0)
    data += b"\0" * (-len(data) % 32) + np.array([1.5, 2.0], dtype="<f2").tobytes()
    facts, tensors = read_gguf(data, "x")
    assert facts == {"a": 7, "b": [1, -1], "c": True}
    assert tensors["t"].tolist() == [[1.5, 2.0]]


def test_every_cut_and_every_flipped_byte_of_a_gguf_is_an_error_or_numbers() -> None:
    whole = gguf_bytes({"general.architecture": "controlvector", "n": 3}, {"direction.1": np.ones(4, dtype=np.float32)})
    for end in range(len(whole) - 32):
        with pytest.raises(ArtifactError):
            read_gguf(whole[:end], "x")
    for place in range(len(whole)):
        for bit in (0, 7):
            with suppress(ArtifactError):
                read_gguf(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :], "x")


def test_persona_rows_are_hidden_states_and_the_last_is_no_direction_of_the_stream(tmp_path: Path) -> None:
    """Proved on a model: row r of what transformers calls hidden_states is what stands at the hookpoint that is read."""
    model = tiny_model()
    hidden = model.hf(input_ids=prompt(), output_hidden_states=True).hidden_states
    torch.save(torch.stack([layer[0, -1].detach() for layer in hidden]), tmp_path / "evil_response_avg_diff.pt")
    found = read_directions(tmp_path / "evil_response_avg_diff.pt")
    assert [direction.hookpoint for direction in found] == ["resid_pre.0", "resid_post.0", "resid_post.1"]
    for direction in found:
        own = model.read(prompt(), [direction.hookpoint])[direction.hookpoint][0, -1]
        torch.testing.assert_close(direction.vector, own)
        assert direction.name == "evil_response_avg_diff"


def test_refusal_rows_are_what_goes_into_blocks(tmp_path: Path) -> None:
    means = torch.randn(2, 3, 6, generator=DRAW)
    torch.save(means, tmp_path / "mean_diffs.pt")
    found = read_directions(tmp_path / "mean_diffs.pt")
    assert len(found) == 6
    (last,) = [one for one in found if (one.name, one.hookpoint) == ("mean_diffs[-1]", "resid_pre.2")]
    assert torch.equal(last.vector, means[1, 2])
    torch.save(means[1, 2], tmp_path / "direction.pt")
    with pytest.raises(ConfigError, match="does not say of which hookpoint"):
        read_directions(tmp_path / "direction.pt")
    assert read_directions(tmp_path / "direction.pt", hookpoint="blocks.2.hook_resid_pre")[0].hookpoint == "resid_pre.2"
    (tmp_path / "direction_metadata.json").write_text(json.dumps({"pos": -1, "layer": 2}))
    assert read_directions(tmp_path / "direction.pt")[0].hookpoint == "resid_pre.2"


class Evil:
    def __reduce__(self):
        return print, ("run",)


def write_evil(path: Path) -> None:
    torch.save(Evil(), path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("x.pt", write_evil, "could run code"),
        ("x.pt", lambda path: torch.save({"a": 1}, path), "holds dict, where one tensor"),
        ("x.pt", lambda path: torch.save(torch.ones(3, dtype=torch.int64), path), "one tensor of numbers"),
        ("x.pt", lambda path: torch.save(torch.full((3, 4), float("nan")), path), "a NaN or an infinity"),
        ("x.pt", lambda path: torch.save(torch.zeros(3, 4), path), "no direction in it"),
        ("x.pt", lambda path: torch.save(torch.ones(2, 2, 2, 2), path), "shape"),
        ("x.pt", lambda path: path.write_bytes(b"no pickle"), "x.pt"),
        ("x.gguf", lambda path: path.write_bytes(b"GGML----"), "not a GGUF file"),
        ("x.gguf", lambda path: path.write_bytes(gguf_bytes({"general.architecture": "llama"}, {})), "not a control vector"),
        ("x.gguf", lambda path: path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1)), "which no control vector has"),
        ("x.gguf", lambda path: path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 1)), "GGUF version"),
        ("x.safetensors", lambda path: save_file({"layer.3": torch.ones(4)}, path), "layer.3 is no hookpoint"),
        ("x.safetensors", lambda path: path.write_bytes(b"\xff" * 20), "not a readable safetensors"),
        ("x.bin", lambda path: path.write_bytes(b""), "are read"),
        ("y.pt", lambda path: None, "no such file"),
    ],
)  # fmt: skip
def test_files_that_hold_no_directions_are_named(tmp_path: Path, name: str, write, words: str) -> None:
    write(tmp_path / name)
    with pytest.raises(MoholeError, match=words):
        read_directions(tmp_path / name)


@pytest.mark.parametrize(
    ("hookpoints", "ending", "words"),
    [
        (["resid_post.0"], "gguf", "as llama.cpp reads it"),
        (["mlp_out.3"], "gguf", "as llama.cpp reads it"),
        (["resid_post.2", "resid_pre.3"], "gguf", "has one already"),
        (["resid_post.2", "resid_post.2"], "safetensors", "each hookpoint once"),
        ([], "safetensors", "no direction"),
        (["resid_post.2"], "pt", r"\.safetensors and \.gguf are written"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused(
    tmp_path: Path, hookpoints: list[str], ending: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        write_directions(tmp_path / f"x.{ending}", [Direction(name, row(), "x") for name in hookpoints])


def test_a_difference_of_means_is_what_it_says_and_steers_by_its_name() -> None:
    model = tiny_model()
    draw = torch.Generator().manual_seed(1)
    positive, negative = (
        [torch.randint(3, 90, (1, n), generator=draw) for n in sizes] for sizes in ((5, 8, 3), (4, 6))
    )
    places = [HOOKPOINT, "mlp_out.2"]
    for over in ("last", "text"):
        found = difference_of_means(model, positive, negative, places, name="happy", over=over)
        for direction in found:
            rows = [
                [model.read(text, [direction.hookpoint])[direction.hookpoint][0].double() for text in side]
                for side in (positive, negative)
            ]
            pick = (lambda own: own[-1]) if over == "last" else (lambda own: own.mean(0))
            means = [torch.stack([pick(own) for own in side]).mean(0) for side in rows]
            torch.testing.assert_close(direction.vector.double(), means[0] - means[1], rtol=1e-5, atol=1e-6)
    plan = make_plan(model, [Add(Named("happy"), value=4.0)], Sources.of(directions=found))
    assert list(plan.stages) == [HOOKPOINT, "mlp_out.2"]  # at each of its places
    assert Steered(model, [plan]).generate(prompt(), max_new_tokens=3).n_fired == 9
    with pytest.raises(ConfigError, match="no negative text"):
        difference_of_means(model, positive, [], places, name="happy")
    with pytest.raises(ConfigError, match="all 0, which is no direction"):
        difference_of_means(model, positive, positive, places, name="happy")
    assert found[0].vector.shape == (D_MODEL,)
    texts, prompts = ["w1 w2", "w3"], [model.tokenizer.prompt(text) for text in ("w1 w2", "w3")]
    as_text, as_ids = (
        difference_of_means(model, given[:1], given[1:], places, name="x")[0].vector for given in (texts, prompts)
    )
    assert torch.equal(as_text, as_ids)
