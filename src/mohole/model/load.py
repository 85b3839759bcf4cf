"""From a name to a proved LanguageModel, and back to a folder. The only file that imports transformers.

Weights are read from safetensors only; no pickle, no code from a model's repository. The network is used only when asked.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer as RawTokenizer
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mohole.device import usable_device
from mohole.errors import ModelError
from mohole.model.families import FAMILIES, layouts_for
from mohole.model.language_model import LanguageModel
from mohole.model.self_test import prove_hookpoints
from mohole.model.source import find_model
from mohole.model.tokenizer import FastTokenizer, Tokenizer

_AutoModel: Any = transformers.AutoModelForCausalLM  # Any: parts of transformers have no types
_FastTokenizer: Any = PreTrainedTokenizerFast
_logging: Any = transformers.utils.logging

DtypeName = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[DtypeName, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_LIBRARY_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError, StrictDataclassError,
)  # fmt: skip  # what transformers is known to raise for a folder that is not what it should be
# Buffers that older checkpoints kept and that are computed now, and an output matrix that is the embedding's.
_DERIVED = (
    "rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".attention.bias", "position_ids", "lm_head.weight",
)  # fmt: skip
_BAR_FROM_BYTES = 1 << 30  # below this, loading takes about a second and a bar would only flicker


def load_model(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    self_test: bool = True,
    allow_download: bool = False,
) -> LanguageModel:
    """The model of a folder, of a hub id, or the built-in one ("planted"), with its hookpoints proved.

    A folder wins over a hub id of the same name. A hub id is looked up in the local cache; `allow_download` allows the network.

    Raises:
        ModelError: a device that cannot be used, nothing there, not a causal language model, damaged, incomplete or pickled
            weights, no fast tokenizer, or a family whose hookpoints the self-test refutes.
    """
    if dtype not in _DTYPES:
        raise ModelError(f"dtype: {dtype!r} is not one of {', '.join(_DTYPES)}")
    placed = _device(device)
    name, folder = find_model(os.fspath(source), revision, allow_download)
    with _quiet(show_bar=sum(path.stat().st_size for path in folder.glob("*.safetensors")) >= _BAR_FROM_BYTES):
        config = _read_config(folder)
        _check_weight_files(folder)
        hf = _read_weights(folder, config, _DTYPES[dtype]).to(placed)
        tokenizer = _read_tokenizer(folder)
    return _with_layout(hf, name=name, tokenizer=tokenizer, folder=folder, self_test=self_test)


def new_model(
    config: Mapping[str, Any],
    *,
    seed: int,
    tokenizer: Tokenizer | None = None,
    name: str = "new",
    self_test: bool = True,
) -> LanguageModel:
    """An untrained model of transformers' `config` (with its model_type), its weights drawn from `seed`; in eval mode.

        new_model({"model_type": "llama", "hidden_size": 128, ...}, seed=0).hf.train()

    Raises:
        ModelError: a config that transformers does not take, or hookpoints that the self-test refutes.
    """
    try:
        with torch.random.fork_rng(devices=[]), _quiet(show_bar=False):
            hf_config = AutoConfig.for_model(**config)
            torch.manual_seed(seed)
            hf = _AutoModel.from_config(hf_config, trust_remote_code=False, dtype=torch.float32)
    except _LIBRARY_ERRORS as error:
        raise ModelError(f"{name}: transformers cannot make a model of this config: {_one_line(error)}") from error
    return _with_layout(hf, name=name, tokenizer=tokenizer, folder=None, self_test=self_test)


def new_tokenizer(backend: RawTokenizer, **special_tokens: str) -> Tokenizer:
    """A model's tokenizer made of a trained `tokenizers.Tokenizer`; special tokens as bos_token="<s>", eos_token=..."""
    return Tokenizer(cast(FastTokenizer, _FastTokenizer(tokenizer_object=backend, **special_tokens)))


def save_model(model: LanguageModel, folder: Path) -> None:
    """Write weights, config and tokenizer as an ordinary Hugging Face folder, which `load_model` reads back the same."""
    with _quiet(show_bar=False):
        cast(Any, model.hf).save_pretrained(folder)
        cast(Any, model.tokenizer.hf).save_pretrained(folder)


def _device(name: str | torch.device) -> torch.device:
    try:
        return usable_device(name)
    except ValueError as error:
        raise ModelError(f"model.device: {error}") from error


def _read_config(folder: Path) -> Any:
    """The folder's config, if it is that of a causal language model."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: no model folder: it has no config.json; give a folder in Hugging Face format")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise TypeError("it is not an object")
        model_type = facts.get("model_type")
        if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except _LIBRARY_ERRORS as error:
        raise ModelError(f"{path}: not a readable model config: {_one_line(error)}") from error
    known = _causal_architectures(str(model_type))
    architectures = facts.get("architectures") or list(known)[:1]
    if not known:
        why = (
            "it needs code from its repository, which mohole does not run"
            if "auto_map" in facts
            else "see its config.json"
        )
        raise ModelError(f"{folder}: model_type {model_type!r} is no causal language model of transformers; {why}")
    if not known.intersection(architectures):
        raise ModelError(
            f"{folder}: {architectures[0]} is no causal language model; expected {' or '.join(sorted(known))}"
        )
    return config


def _causal_architectures(model_type: str) -> set[str]:
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    return {names} if isinstance(names, str) else set(names)


def _check_weight_files(folder: Path) -> None:
    """Name the file at fault before transformers meets it.

    Raises:
        ModelError: there are no safetensors, one that the index names is missing, or one is damaged.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        try:
            files = sorted(
                folder / name for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: not a readable index of weights: {_one_line(error)}") from error
    if not files:
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        found = f"only pickled weights ({pickles[0]}), which mohole never loads; convert them to" if pickles else "no"
        raise ModelError(f"{folder}: it has {found} safetensors weights")
    for path in files:
        if not path.is_file():
            raise ModelError(f"{path}: missing, though {index.name} names it; fetch the model again")
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: damaged: {_one_line(error)}; fetch the model again") from error


def _read_weights(folder: Path, config: Any, dtype: torch.dtype) -> nn.Module:
    try:
        hf, info = _AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except _LIBRARY_ERRORS as error:
        raise ModelError(f"{folder}: its weights do not load: {_one_line(error)}") from error
    # transformers fills what is missing with random numbers and goes on
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{folder}: {len(missing)} missing weights, first {missing[0]}; fetch the model again")
    if mismatched := sorted(info["mismatched_keys"]):
        name, there, expected = mismatched[0]
        raise ModelError(
            f"{folder}: {len(mismatched)} weights of another shape than its config.json says, first {name}: {list(there)}, not "
            f"{list(expected)}; fetch the model again"
        )
    if extra := sorted(name for name in info["unexpected_keys"] if not name.endswith(_DERIVED)):
        raise ModelError(
            f"{folder}: {len(extra)} weights that its config.json has no place for, first {extra[0]}, so it would run without "
            "them; fetch the model again, with the config that belongs to its weights"
        )
    return cast(nn.Module, hf)


def _read_tokenizer(folder: Path) -> Tokenizer:
    try:
        hf = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, use_fast=True)
    except _LIBRARY_ERRORS as error:
        raise ModelError(
            f"{folder}: its tokenizer does not load: {_one_line(error)}; add its tokenizer.json"
        ) from error
    if not isinstance(hf, PreTrainedTokenizerFast):
        raise ModelError(f"{folder}: {type(hf).__name__} gives no character offsets; add a tokenizer.json")
    return Tokenizer(cast(FastTokenizer, hf))


def _with_layout(
    hf: nn.Module, *, name: str, tokenizer: Tokenizer | None, folder: Path | None, self_test: bool
) -> LanguageModel:
    """The model with its family's layout; for a family not in the table, with the first layout that the self-test proves: the
    first with `z`, if there is one."""
    model_type = str(cast(Any, hf.config).model_type)
    known = model_type in FAMILIES
    if not known and not self_test:
        raise ModelError(f"{name}: the {model_type} family is not in mohole's table: load it with its self-test")
    refusal = ModelError("it has no blocks of attention and MLP where mohole looks for them (mohole/model/families.py)")
    without_z: LanguageModel | None = None
    for layout in layouts_for(model_type):
        try:
            model = LanguageModel(hf, layout, name=name, tokenizer=tokenizer, folder=folder)
        except ModelError as error:
            if known:
                raise ModelError(f"{name}: the {model_type} family is refused: {error}") from error
            continue
        try:
            if self_test:
                prove_hookpoints(model)
        except ModelError as error:
            refusal = error
        else:
            if known or model.heads is not None:
                return model
            without_z = without_z or model
    if without_z is not None:
        return without_z
    raise (
        refusal if known else ModelError(f"{name}: the {model_type} family fits no layout that mohole knows: {refusal}")
    )


@contextmanager
def _quiet(*, show_bar: bool) -> Iterator[None]:
    """transformers without its notices, and without its bars unless loading takes long; as it was, afterwards."""
    verbosity, bars = _logging.get_verbosity(), _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    if not show_bar:
        _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300] if lines else type(error).__name__
