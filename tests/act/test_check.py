"""What the check says of clamps, against a count by hand: how often the edited rows read the held values again."""

import pytest
import torch
from tests.act.tiny import HOOKPOINT, prompt, random_sae, tiny_model

from mohole.act import Clamp, steer


@pytest.mark.parametrize("clamps", [[(5, 60.0)], [(5, 60.0), (6, 0.0)], [(5, 3.0), (9, -4.0), (8, 25.0)]])
def test_the_check_counts_how_often_the_edited_rows_read_back(clamps: list[tuple[int, float]]) -> None:
    """By hand: encode the rows that the model went on with, and count the latents within 5 % of where they are held."""
    model, sae = tiny_model(), random_sae()
    steered = steer(model, sae, [Clamp(latent, value=value) for latent, value in clamps])
    tokens = torch.cat([torch.full((6, 1), 1), prompt(batch=6, length=11)], dim=1)
    edited = model.read(tokens, [HOOKPOINT], steered.edits)[HOOKPOINT][:, 1:].flatten(0, 1)
    codes = sae.encode(edited).dense()
    n_right = 0
    for latent, value in clamps:
        n_right += sum(abs(read - value) <= 0.05 * abs(value) for read in codes[:, latent].tolist())
    (check,) = steered.check(tokens)
    assert check.n_rows == len(edited) == 66
    assert 0 < n_right < len(clamps) * 66
    assert check.reads_back == pytest.approx(n_right / (len(clamps) * 66), abs=1e-6)
