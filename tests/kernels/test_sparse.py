"""The fast kernels do what the slow, obvious ones do, ties included."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.kernels import reference, sparse


def draw(*shape: int, seed: int, levels: int | None = None) -> torch.Tensor:
    """Normal numbers, or small whole ones, so that there are ties everywhere."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(*shape, generator=generator)
    return torch.randint(-levels, levels + 1, shape, generator=generator).float()


@given(
    n_rows=st.integers(1, 9),
    n_latents=st.integers(1, 300),
    k=st.integers(1, 40),
    levels=st.sampled_from([None, 1, 2, 5, 40]),
    seed=st.integers(0, 1000),
)
def test_top_k_keeps_what_a_stable_sort_keeps(
    n_rows: int, n_latents: int, k: int, levels: int | None, seed: int
) -> None:
    k = min(k, n_latents)
    pre = draw(n_rows, n_latents, seed=seed, levels=levels)
    values, latents = sparse.top_k(pre, k)
    assert torch.equal(values, reference.top_k(pre, k)[0])  # as numbers, ties or not
    kept = torch.zeros_like(pre).scatter(1, latents, values.clamp_min(0.0))
    assert torch.equal(kept, reference.codes(pre, k))


def test_among_equals_the_lowest_latents_are_kept_in_every_row_and_width() -> None:
    for n_latents in (7, 64, 513, 4096):
        values, latents = sparse.top_k(torch.ones(3, n_latents), 5)
        assert torch.equal(latents.sort(1)[0], torch.arange(5).expand(3, 5))
        assert torch.equal(values, torch.ones(3, 5))


def test_the_largest_entries_may_share_a_block() -> None:
    # Blocks are strided (every 128th latent of 1024): all eight of one block, then the next block's.
    pre = torch.zeros(1, 1024)
    pre[0, 3::128] = torch.arange(8.0, 16.0)
    pre[0, 4::128] = torch.arange(1.0, 9.0) / 10
    values, latents = sparse.top_k(pre, 12)
    assert values[0].tolist() == [15, 14, 13, 12, 11, 10, 9, 8] + [float(pre[0, 4 + 128 * i]) for i in (7, 6, 5, 4)]
    assert torch.equal(pre[0, latents[0]], values[0])


@given(
    n_rows=st.integers(1, 20),
    n_latents=st.integers(2, 60),
    k=st.integers(1, 8),
    d=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_decode_and_sums_by_latent_are_products_with_the_dense_codes(
    n_rows: int, n_latents: int, k: int, d: int, seed: int
) -> None:
    pre, W_dec, rows = (
        draw(n_rows, n_latents, seed=seed),
        draw(n_latents, d, seed=seed + 1),
        draw(n_rows, d, seed=seed + 2),
    )
    values, latents = sparse.top_k(pre, min(k, n_latents))
    values = values.clamp_min(0.0)
    dense = reference.codes(pre, min(k, n_latents))
    torch.testing.assert_close(sparse.decode(values, latents, W_dec), dense @ W_dec)
    torch.testing.assert_close(sparse.ByLatent.of(latents, n_latents).sum(values, rows), dense.T @ rows)


def test_the_reference_gradient_is_the_slope_of_the_loss() -> None:
    shapes = {"W_enc_LD": (12, 5), "b_enc_L": (12,), "W_dec_LD": (12, 5), "b_dec_D": (5,)}
    weights = {name: draw(*shape, seed=i).double() for i, (name, shape) in enumerate(shapes.items())}
    rows, k = draw(30, 5, seed=9).double(), 3

    def loss(**moved: torch.Tensor) -> float:
        w = weights | moved
        pre = reference.pre_activations(rows, w["W_enc_LD"], w["b_enc_L"], w["b_dec_D"])
        output = reference.decode(reference.codes(pre, k), w["W_dec_LD"], w["b_dec_D"])
        return float(reference.reconstruction_loss(rows, output))

    gradients = reference.gradients(rows, **weights, k=k)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        nudge = torch.zeros_like(weight)
        nudge.view(-1)[3] = 1e-7
        slope = (loss(**{name: weight + nudge}) - loss(**{name: weight - nudge})) / 2e-7
        assert abs(slope - float(gradient.view(-1)[3])) < 1e-6, name
