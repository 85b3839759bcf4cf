"""Run by the interpreter with sae-bench: its formulas on the arrays left in a folder. No part of mohole is imported here.

What sae-bench imports but these formulas do not use (sae_lens, transformer_lens and other large libraries) may be missing.
"""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch


class _Absent:
    """Stands in for a library that is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith(
            ("sae_bench", "tqdm")
        ):  # its loops run through tqdm: one that stands in would leave them empty
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module):
        pass


def absorption(arrays):
    from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator

    class OnRows(FeatureAbsorptionCalculator):
        def _build_prompts(self, words):
            return [SimpleNamespace(word=word, base=word) for word in words]

        def _validate_prompts_are_same_length(self, prompts):
            pass

    rows, codes = (torch.from_numpy(arrays[name]) for name in ("rows", "codes"))
    model = MagicMock()
    model.run_with_cache.return_value = (None, {"blocks.0.hook_resid_post": rows[:, None].repeat(1, 2, 1)})
    sae = SimpleNamespace(W_dec=torch.from_numpy(arrays["decoder"]), device="cpu", encode=lambda _: codes)
    calculator = OnRows(model, [], answer_formatter=None, batch_size=len(rows), topk_feats=5)
    found = calculator.calculate_absorption(
        sae,
        ["word"] * len(rows),
        torch.from_numpy(arrays["direction"]),
        arrays["main"].tolist(),
        0,
        show_progress=False,
    )
    return {
        "full": np.array([result.is_full_absorption for result in found.word_results]),
        "share": np.array([float(result.absorption_fraction) for result in found.word_results]),
    }


def scr_and_tpp(arrays):
    from sae_bench.evals.scr_and_tpp import main

    before, after = arrays["before"], arrays["after"]
    names = [str(c) for c in range(len(before))]
    edited = {names[i]: {1: dict(zip(names, row.tolist(), strict=True))} for i, row in enumerate(after)}
    overall, _ = main.create_tpp_plotting_dict(edited, dict(zip(names, before.tolist(), strict=True)))
    probe = "male_professor / female_nurse probe on professor / nurse data"
    other = "male_professor / female_nurse probe on male / female data"
    biased, ablated, oracle = arrays["scr"].tolist()
    clean = {probe: biased, other: 1.0, "professor / nurse": oracle, "male / female": 1.0}
    changed = {each: {1: {probe: ablated, other: 1.0}} for each in ("male / female", "professor / nurse")}
    scr = main.get_scr_plotting_dict(changed, clean)
    return {"tpp": np.array(overall["tpp_threshold_1_total_metric"]), "scr": np.array(scr["scr_dir1_threshold_1"])}


def attribution(arrays):
    from sae_bench.evals.scr_and_tpp import main

    codes = torch.from_numpy(arrays["codes"])[:, None]
    main.probe_training.prepare_probe_data = lambda *_: (
        torch.ones_like(codes),
        torch.from_numpy(
            np.where(arrays["positive"], main.dataset_info.POSITIVE_CLASS_LABEL, main.dataset_info.NEGATIVE_CLASS_LABEL)
        ),
    )
    weight = torch.from_numpy(arrays["direction"])[None]
    probe = SimpleNamespace(net=SimpleNamespace(weight=weight))
    sae = SimpleNamespace(W_dec=torch.nn.Parameter(torch.from_numpy(arrays["decoder"])), encode=lambda _: codes)
    effects = main.get_effects_per_class_precomputed_acts(sae, probe, "0", {}, True, len(codes))
    return {"effects": effects.detach().double().numpy()}


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    sys.modules["beartype"] = SimpleNamespace(beartype=lambda function: function)  # it would refuse what stands in
    sys.meta_path.append(_Absent())
    arrays = dict(np.load(folder / "arrays.npz"))
    np.savez(
        folder / "found.npz",
        **{"absorption": absorption, "scr_and_tpp": scr_and_tpp, "attribution": attribution}[what](arrays),
    )
