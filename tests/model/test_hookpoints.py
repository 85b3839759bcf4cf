"""Names of hookpoints: what is accepted, what it means, and what a wrong one is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import HookpointError
from mohole.model import all_hookpoints, parse_hookpoint


@given(st.integers(1, 40))
def test_every_name_is_read_back_as_itself(n_layers: int) -> None:
    points = all_hookpoints(n_layers)
    assert [parse_hookpoint(str(point), n_layers=n_layers) for point in points] == points
    assert len({str(point) for point in points}) == 1 + 6 * n_layers


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [
        ("hook_embed", "embed"),
        ("blocks.6.hook_resid_post", "resid_post.6"),
        ("blocks.0.hook_resid_pre", "resid_pre.0"),
        ("blocks.2.hook_attn_out", "attn_out.2"),
        ("blocks.11.hook_mlp_out", "mlp_out.11"),
        ("blocks.4.attn.hook_z", "z.4"),
        ("z.4.11", "z.4.11"),
    ],
)
def test_transformer_lens_names_are_translated(given_name: str, meant: str) -> None:
    assert str(parse_hookpoint(given_name, n_layers=12)) == meant


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resid_post.40", "resid_post.40: gpt2 has 12 layers (0-11); `mohole show hookpoints gpt2` lists them"),
        ("blocks.12.hook_resid_post", "blocks.12.hook_resid_post: gpt2 has 12 layers (0-11)"),
        ("resid_psot.3", "did you mean resid_post.3?"),
        ("mlp.3", "did you mean mlp_"),
        ("residual", "no such hookpoint"),
        ("resid_post", "needs a layer counted from 0, as in resid_post.0"),
        ("resid_post.-1", "needs a layer counted from 0"),
        ("resid_post.1.2", "needs a layer counted from 0"),
        ("embed.0", "embed has no layer"),
        ("blocks.3.hook_mlp_in", "before the norm"),
        ("blocks.3.attn.hook_q", "no such hookpoint in mohole"),
        ("z.3.x", "needs a layer counted from 0, as in z.0"),
        ("attn_out.3.1", "needs a layer counted from 0"),
        ("z.12.0", "z.12.0: gpt2 has 12 layers (0-11)"),
        ("blocks.3.hook_resid_mid", "no such hookpoint in mohole"),
        ("", "no such hookpoint"),
    ],
)
def test_a_wrong_name_is_told_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(HookpointError) as caught:
        parse_hookpoint(name, n_layers=12, model="gpt2")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
