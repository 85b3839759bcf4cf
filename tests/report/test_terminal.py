"""The findings in a terminal: what is said, in how many columns, with and without colour."""

import io
from collections import Counter
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.report.run_folder import BRIDGE, HOOKPOINTS, make_run

from mohole.report import print_findings, read_findings
from mohole.report.choose import choose_features
from mohole.report.findings import Snippet
from mohole.report.terminal import snippet_line


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return read_findings(make_run(tmp_path_factory.mktemp("terminal") / "demo"), model="planted")


def printed(findings, width, **options):
    out = io.StringIO()
    print_findings(findings, Console(file=out, width=width, **options))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_it_fits_the_window_and_is_plain_when_piped(findings, width):
    shown = printed(findings, width)
    assert "\x1b" not in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= min(width, 120)
    for part in (
        "FVU",
        "0.0210",
        "recovered",
        "0.9978",
        "1/40",
        "1.000→0.965",
        "landmark",
        "ceiling:",
        "floor:",
        "PCA",
    ):
        assert part in shown
    for part in ("Detection is not cause", "+0.321", "+0.012", "+0.045", "+0.155", "0.91"):
        assert part in shown
    assert "red." in shown
    assert "fired at 38 of 38 tokens" in shown
    assert "200 prompts of each" in " ".join(shown.split())


def test_tasks_of_unlike_sizes_say_from_how_many_to_how_many_prompts(findings):
    place = findings.hookpoints[0]
    first, *others = place.evaluation.tasks
    unlike = replace(place, evaluation=replace(place.evaluation, tasks=(replace(first, n=40), *others)))
    shown = printed(replace(findings, hookpoints=(unlike, *findings.hookpoints[1:])), 100)
    assert "40 to 200 prompts of each" in " ".join(shown.split())


def test_nothing_of_a_table_is_cut_at_80_columns(findings):
    tables = printed(findings, 80).split("features of the")[0]
    assert "…" not in tables


def test_active_tokens_are_marked_without_colour_and_coloured_with_it(findings):
    assert "«Golden-Gate-Brücke»" in printed(findings, 100)
    coloured = printed(findings, 100, force_terminal=True, color_system="truecolor", no_color=False)
    assert "«" not in coloured
    assert "\x1b[" in coloured
    assert "«Golden-Gate-Brücke»" in printed(
        findings, 100, force_terminal=True, color_system="truecolor", no_color=True
    )


def test_a_text_cannot_steer_the_terminal(findings):
    """The label holds an escape sequence and a bidi override; of escapes only rich's own colours may be written."""
    shown = printed(findings, 120, force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[31m\u2028" not in shown
    assert "\u202e" not in shown
    assert "⟨202E⟩" in shown


def test_a_line_keeps_its_token_in_sight_and_fits():
    pieces = tuple(f" 词{i}" if i % 2 else f" word{i}" for i in range(60))
    values = tuple(5.0 if i in (20, 21, 23) else 0.0 for i in range(60))
    for focus in (0, 21, 59):
        for width in (20, 41, 77):
            for marks in (False, True):
                line = snippet_line(Snippet(0, 0, focus, pieces, values), 5.0, width, marks=marks)
                assert pieces[focus].strip() in line.plain
                assert cell_len(line.plain) <= width
    both = snippet_line(Snippet(0, 0, 21, pieces, values), 5.0, 60, marks=True).plain
    assert "«word20 词21» word22 «词23»" in both


def test_a_token_longer_than_the_line_is_cut_not_spilled():
    line = snippet_line(Snippet(0, 0, 0, ("x" * 300,), (1.0,)), 1.0, 40, marks=True)
    out = io.StringIO()
    Console(file=out, width=40).print(line)
    assert all(cell_len(row) <= 40 for row in out.getvalue().splitlines())


def test_the_steered_feature_is_always_shown_and_comes_first(findings):
    first = choose_features(findings, 20)[0]
    assert (first.hookpoint, first.feature.latent) == (HOOKPOINTS[1], BRIDGE)


def test_the_chosen_are_unlike_each_other(findings):
    chosen = choose_features(findings, 20)
    assert len(chosen) == len({(item.hookpoint, item.feature.latent) for item in chosen}) == 20
    labels = Counter(item.feature.label.text for item in chosen)
    assert max(labels.values()) == 1  # every word has a latent at both hookpoints
    assert {item.hookpoint for item in chosen} == set(HOOKPOINTS)
    assert len({item.feature.label.kind for item in chosen}) >= 4


def test_punctuation_comes_after_words(findings):
    """Ten features on full stops, labelled perfectly, against thirty words labelled less well."""
    place = findings.hookpoints[0]
    word = next(feature for feature in place.features if feature.latent == 5)

    def on(piece, latent, f1):
        top = tuple(replace(snippet, pieces=(piece,), values=(1.0,), focus=0) for snippet in word.top)
        label = replace(word.label, latent=latent, text=f"{piece} {latent}", f1=f1)
        return replace(word, latent=latent, top=top, label=label)

    stops = tuple(on(" .", latent, 1.0) for latent in range(10))
    words = tuple(on(f" w{latent}", latent, 0.7) for latent in range(10, 40))
    mixed = replace(findings, hookpoints=(replace(place, features=stops + words),), steering=None)
    chosen = choose_features(mixed, 20)
    assert sum(item.feature.latent < 10 for item in chosen) <= 1


def test_without_truth_tasks_or_steering_the_rest_is_shown(tmp_path):
    bare = replace(read_findings(make_run(tmp_path / "bare", with_truth=False)), steering=None)
    places = tuple(replace(place, evaluation=replace(place.evaluation, tasks=())) for place in bare.hookpoints)
    shown = printed(replace(bare, hookpoints=places), 80)
    assert "FVU" in shown
    assert "features of the" in shown
    assert "Planted" not in shown
    assert "Steering" not in shown
