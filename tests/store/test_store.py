"""A store gives back the rows of any tokens, says what it holds, and names what is missing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.worlds import WIDTHS, flip, make_world, shuffled, small, write

from mohole import artifact
from mohole.errors import ArtifactError, DamageError, HookpointError
from mohole.store import Order, Store

WORLD = make_world(40)
KINDS = ("runs", "sorted", "text")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("stores")
    runs = write(folder / "runs", WORLD)
    text = Order.text(WORLD.documents)
    return {
        "runs": runs,
        "sorted": shuffled(folder / "sorted", runs, small(), levels=1),
        "text": shuffled(folder / "text", runs, small(), order=text),
    }


@settings(max_examples=15)
@given(
    name=st.sampled_from(KINDS),
    hookpoint=st.sampled_from(list(WIDTHS)),
    seed=st.integers(0, 999),
    n=st.integers(0, 1500),
)
def test_any_tokens_in_any_order_and_as_often_as_asked(
    stores: dict[str, Store], name: str, hookpoint: str, seed: int, n: int
) -> None:
    chosen = np.random.default_rng(seed).integers(0, len(WORLD.tokens), n)
    rows = stores[name].take(hookpoint, WORLD.tokens[chosen])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, WORLD.rows[hookpoint][chosen])


@pytest.mark.parametrize("name", KINDS)
def test_what_it_holds(stores: dict[str, Store], name: str) -> None:
    store = stores[name]
    assert (store.n_rows, store.hookpoints, store.dtype) == (len(WORLD.tokens), tuple(WIDTHS), "float32")
    assert [store.d_model(hookpoint) for hookpoint in WIDTHS] == list(WIDTHS.values())
    np.testing.assert_array_equal(store.tokens, WORLD.tokens)
    np.testing.assert_array_equal(store.held_out, WORLD.documents.held_out[WORLD.documents.of(WORLD.tokens)])
    np.testing.assert_array_equal(store.documents.starts, WORLD.documents.starts)
    assert store.facts.n_training == (~store.held_out).sum()
    assert store.facts.is_sorted == (name != "runs")
    store.check_sizes()


@pytest.mark.parametrize("name", KINDS)
def test_tokens_without_a_row_are_counted(stores: dict[str, Store], name: str) -> None:
    n_tokens = int(WORLD.documents.starts[-1])
    skipped = np.setdiff1d(np.arange(n_tokens), WORLD.tokens)[:3]
    for unknown in (skipped, np.array([-1, n_tokens, 10**12])):
        asked = np.concatenate([WORLD.tokens[:5], unknown])
        with pytest.raises(ArtifactError, match=r"3 of 8 tokens have no row of embed"):
            stores[name].take("embed", asked)


def test_a_hookpoint_that_is_not_there_is_named_with_those_that_are(stores: dict[str, Store]) -> None:
    for ask in (lambda store: store.take("resid_post.9", np.array([0])), lambda store: store.d_model("resid_post.9")):
        with pytest.raises(HookpointError, match=r"resid_post.9: not in .*runs; it has embed, mlp_out.0"):
            ask(stores["runs"])


def test_a_missing_or_short_shard_is_named(tmp_path: Path) -> None:
    store = write(tmp_path / "s", WORLD)
    file = tmp_path / "s" / store.layout.shards["embed"][1].name
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    with pytest.raises(ArtifactError, match=rf"{file.name}: \d+ bytes, {len(data)} expected"):
        Store.open(tmp_path / "s").check_sizes()
    file.unlink()
    with pytest.raises(ArtifactError, match=rf"{file.name}: missing; mohole verify .* --mend"):
        Store.open(tmp_path / "s").check_sizes()
    with pytest.raises(DamageError, match=file.name):
        Store.open(tmp_path / "s").take("embed", WORLD.tokens)
    Store.open(tmp_path / "s").take("mlp_out.0", WORLD.tokens)


@pytest.mark.parametrize("name", ["store.json", "layout.json", "documents.safetensors", "manifest.json"])
def test_no_changed_byte_of_a_small_file_goes_unseen(tmp_path: Path, name: str) -> None:
    """Of the manifest only those that matter: what it says of the store's own files."""
    write(tmp_path / "s", make_world(5))
    file = tmp_path / "s" / name
    data = file.read_bytes()
    start = data.index(b"xxh3") if name == "manifest.json" else 0
    stop = start + 40 if name == "manifest.json" else len(data)
    for place in range(start, stop, max((stop - start) // 40, 1)):
        flip(file, place)
        with pytest.raises(ArtifactError, match=r"store.json|layout.json|documents.safetensors|manifest.json"):
            _ = Store.open(tmp_path / "s").documents
        flip(file, place)
    _ = Store.open(tmp_path / "s").documents


def test_what_is_no_finished_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing: no finished store there; mohole harvest"):
        Store.open(tmp_path / "nothing")
    with artifact.create(tmp_path / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as draft:
        (draft / "x").write_text("x")
    with pytest.raises(ArtifactError, match=r"corpus: holds 'corpus', not activations"):
        Store.open(tmp_path / "corpus")


def test_bfloat16_rows_are_read_near_what_was_written(tmp_path: Path) -> None:
    store = write(tmp_path / "s", WORLD, dtype="bfloat16")
    assert store.dtype == "bfloat16"
    np.testing.assert_allclose(store.take("mlp_out.0", WORLD.tokens), WORLD.rows["mlp_out.0"], rtol=2**-8)
