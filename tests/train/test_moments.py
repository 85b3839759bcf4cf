"""A training with moments in fewer bits takes less memory, and learns what one in 32 bits learns."""

from typing import Any

import pytest
from tests.train.test_variants import World, learn

from mohole.config import TopK
from mohole.config.train import Adam


def test_fewer_bits_take_less_memory_and_learn_the_same(no_shape_checks: None) -> None:
    found: dict[str, Any] = {}
    for bits in ("float32", "bfloat16", "8bit"):
        optimiser = Adam.model_validate({"moments": bits})
        trainer, lines = learn("sae", World(), nonlinearity=TopK(k=3), steps=150, optimiser=optimiser)
        held = {
            name: tensor for name, tensor in trainer.state()[0].items() if name.startswith("adam.") and ".W_" in name
        }
        found[bits] = lines[-1]["fvu"], sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    (fvu, n_bytes), (fvu_16, n_bytes_16), (fvu_8, n_bytes_8) = found.values()
    assert n_bytes == 2 * 2 * 64 * 24 * 4
    assert n_bytes_16 < 0.6 * n_bytes
    assert n_bytes_8 < 0.35 * n_bytes  # rows are short here: scales are a twelfth
    assert fvu_16 == pytest.approx(fvu, rel=0.05)
    assert fvu_8 == pytest.approx(fvu, rel=0.1)
