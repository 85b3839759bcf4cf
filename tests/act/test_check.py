"""What the check says of clamps, against a count by hand: how often the edited rows read the held values again."""

import pytest
import torch
from tests.act.tiny import HOOKPOINT, prompt, random_sae, tiny_model

from mohole.act import Clamp, check, steer
from mohole.dictionary import LayerNorm, LengthNorm, NormalisedAutoencoder, RowNorm


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
    (found,) = check(steered, tokens)
    assert found.n_rows == len(edited) == 66
    assert 0 < n_right < len(clamps) * 66
    assert found.reads_back == pytest.approx(n_right / (len(clamps) * 66), abs=1e-6)


@pytest.mark.parametrize("row_norm", [LayerNorm(), LengthNorm()])
def test_in_the_model_each_row_moves_by_its_own_scale(row_norm: RowNorm) -> None:
    model, dictionary = tiny_model(), NormalisedAutoencoder(random_sae(), row_norm)
    steered = steer(model, dictionary, [Clamp(5, value=6.0)])
    tokens = torch.cat([torch.full((6, 1), 1), prompt(batch=6, length=11)], dim=1)
    before = model.read(tokens, [HOOKPOINT])[HOOKPOINT]
    after = model.read(tokens, [HOOKPOINT], steered.edits)[HOOKPOINT]
    assert torch.equal(after[:, 0], before[:, 0])
    old, new = (rows[:, 1:].flatten(0, 1) for rows in (before, after))
    scale = (old - old.mean(1, keepdim=True)).std(1) if isinstance(row_norm, LayerNorm) else old.norm(dim=1) / 32**0.5
    assert scale.std() > 0.05 * scale.mean()
    by = scale * (6.0 - dictionary.encode(old).column(5))
    torch.testing.assert_close(new - old, by[:, None] * dictionary.own.W_dec[5], rtol=1e-4, atol=1e-4)
    (found,) = check(steered, tokens)
    assert found.row_error < 1e-6
