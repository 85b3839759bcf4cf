"""Folders: what is saved is loaded again, and every way in which a folder is no model gets one line that says so."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors
from torch import Tensor

from mohole.errors import ModelError
from mohole.model import LanguageModel, Tokenizer, load_model, new_model, save_model
from mohole.model.load import new_tokenizer

Config = Callable[[str], dict[str, object]]


def byte_tokenizer() -> Tokenizer:
    """<s>, </s>, then one token per byte; like many, it would put both around a text if it were let."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = RawTokenizer(models.BPE(vocab={"<s>": 0, "</s>": 1} | {c: 2 + i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return new_tokenizer(raw, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, config_of: Config) -> tuple[LanguageModel, Path]:
    model = new_model(config_of("llama") | {"vocab_size": 260}, seed=0, tokenizer=byte_tokenizer(), name="small")
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(model, folder)
    return model, folder


@pytest.fixture
def folder(saved: tuple[LanguageModel, Path], tmp_path: Path) -> Path:
    """A copy of a good folder, to spoil."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in saved[1].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def change_config(folder: Path, **changes: object) -> None:
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | changes))


def test_a_saved_model_is_loaded_again_the_same(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    loaded = load_model(folder)
    tokens = loaded.tokenizer.prompt("where is the bridge?")
    assert torch.equal(loaded.logits(tokens), model.logits(tokens))
    assert (loaded.name, loaded.family, loaded.n_layers, loaded.d_model, loaded.vocab_size) == (
        "small",
        "llama",
        3,
        32,
        260,
    )
    assert (loaded.context, loaded.bos_id, loaded.special_ids) == (64, 0, {0, 1})
    assert loaded.self_test is not None
    assert loaded.hookpoints()[:3] == ["embed", "resid_pre.0", "z.0"]
    assert load_model(str(folder), dtype="bfloat16").logits(tokens).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "falcon", "opt", "bloom", "mixtral", "gpt_oss"])
def test_families_survive_a_folder(name: str, config_of: Config, tmp_path: Path) -> None:
    """No weight is missing after loading: transformers would fill it with random numbers and go on."""
    model = new_model(config_of(name) | {"vocab_size": 260}, seed=1, tokenizer=byte_tokenizer())
    save_model(model, tmp_path / name)
    tokens = torch.tensor([[5, 9, 33, 70]])
    assert torch.equal(load_model(tmp_path / name).logits(tokens), model.logits(tokens))


def test_a_new_model_is_its_seed(config_of: Config) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, again, other = (new_model(config_of("llama"), seed=seed, self_test=False) for seed in (1, 1, 2))
    assert one.model_hash == again.model_hash != other.model_hash
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ModelError, match="no tokenizer"):
        _ = one.tokenizer


def test_the_hash_covers_every_byte_of_weights_and_config(folder: Path) -> None:
    before = load_model(folder, self_test=False).model_hash
    assert load_model(folder, self_test=False).model_hash == before
    change_config(folder, rms_norm_eps=1e-5)
    changed = load_model(folder, self_test=False).model_hash
    assert changed != before
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(folder, self_test=False).model_hash not in (before, changed)


def test_the_tokenizer_adds_nothing_and_loses_nothing() -> None:
    tokenizer = byte_tokenizer()
    text = "Où est le pont? 金门大桥"
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(torch.tensor(ids)) == text
    assert tokenizer.encode(text) == ids
    assert len(ids) == len(text.encode()) == len(offsets)
    assert (offsets[0], offsets[-1]) == ((0, 1), (len(text) - 1, len(text)))
    assert tokenizer.prompt("ab").tolist() == [[0, *tokenizer.encode("ab")]]
    assert [tokenizer.piece(token) for token in tokenizer.encode(" b")] == [" ", "b"]
    assert (tokenizer.piece(0), tokenizer.piece(5000)) == ("<s>", "<5000>")


def spoil_nothing(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_pickles(folder: Path) -> None:
    remove_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def not_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_text("hello")


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lose_a_shard(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def spoil_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("[]")


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def config_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


def lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nothing, "no model folder: it has no config.json"),
        (remove_weights, "no safetensors weights"),
        (only_pickles, "only pickled weights (pytorch_model.bin), which mohole never loads"),
        (truncate, "model.safetensors: damaged"),
        (not_safetensors, "model.safetensors: damaged"),
        (lose_a_weight, "1 missing weights, first model.layers.1.mlp.up_proj.weight"),
        (lose_a_shard, "model-00002-of-00002.safetensors: missing"),
        (spoil_the_index, "not a readable index of weights"),
        (spoil_config, "not a readable model config"),
        (config_is_a_list, "not a readable model config"),
        (lose_tokenizer, "tokenizer"),
        (
            lambda folder: change_config(folder, hidden_size=48),
            "weights of another shape than its config.json says, first lm_head.weight: [260, 32]",
        ),
        (lambda folder: change_config(folder, hidden_size="wide"), "not a readable model config"),
        (lambda folder: change_config(folder, model_type="t5"), "model_type 't5' is no causal language model"),
        (lambda folder: change_config(folder, model_type=None), "model_type None is no causal language model"),
        (lambda folder: change_config(folder, model_type="mine", auto_map={}), "needs code from its repository"),
        (
            lambda folder: change_config(folder, architectures=["LlamaForSequenceClassification"]),
            "LlamaForSequenceClassification is no causal language model; expected LlamaForCausalLM",
        ),
    ],
)
def test_a_folder_that_is_no_model_says_why(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no-such/model", "not in the local"),
        ("./nowhere", "./nowhere: no such folder; give a model's folder, a hub id, or planted"),
        ("/nowhere/at/all", "no such folder"),
        ("a b", "no such folder"),
    ],
)
def test_a_source_that_is_nowhere_says_the_next_step(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(source)
    expected = "no such model in the local Hugging Face cache" if message == "not in the local" else message
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match="a file; a model is the folder that holds it"):
        load_model(folder / "model.safetensors")
    with pytest.raises(ModelError, match="dtype: 'float8' is not one of"):
        load_model(folder, dtype="float8")


def test_a_model_whose_weights_are_not_numbers_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model: mlp_out\.1 holds a NaN or an infinity"):
        load_model(folder)


def test_importing_the_package_loads_no_transformers() -> None:
    code = (
        "import sys, mohole.model, mohole.model.hookpoints; "
        "assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules; "
        "from mohole.model import LanguageModel; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_is_silent(saved: tuple[LanguageModel, Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_model(saved[1])
    assert capfd.readouterr() == ("", "")


def test_loaded_rows_are_float32_without_gradients(saved: tuple[LanguageModel, Path]) -> None:
    rows: Tensor = load_model(saved[1]).read(torch.tensor([[3, 4]]), ["resid_post.2"])["resid_post.2"]
    assert rows.dtype == torch.float32
    assert not rows.requires_grad


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_cannot_be_used_is_named(saved: tuple[LanguageModel, Path], device: str) -> None:
    with pytest.raises(
        ModelError, match=rf"model.device: '{device}' cannot be used here: .*; give .cpu., or"
    ) as caught:
        load_model(str(saved[1]), device=device)
    assert "\n" not in str(caught.value)


def test_weights_that_the_config_has_no_place_for_are_refused(
    saved: tuple[LanguageModel, Path], tmp_path: Path
) -> None:
    """A config with fewer layers than the weights would load as another, shorter model."""
    folder = tmp_path / "short"
    shutil.copytree(saved[1], folder)
    facts = json.loads((folder / "config.json").read_text())
    facts["num_hidden_layers"] -= 1
    facts.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=r"9 weights that its config.json has no place for, first model.layers.\d"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"])
def test_buffers_that_are_computed_now_may_lie_in_old_weights(
    saved: tuple[LanguageModel, Path], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(saved[1], folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {name: weights.get(name, torch.ones(4))}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    load_model(folder)
