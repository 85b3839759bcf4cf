"""The findings of a run in a terminal: quality, recovery, features in colour, steering. Plain text when it is piped.

Colour never carries meaning alone: without it, active tokens stand between « and ».
"""

from collections.abc import Sequence
from statistics import mean

from rich.box import HORIZONTALS, SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mohole.act import Demonstration
from mohole.evaluate.recovery.results import FamilyResult, LabelResult
from mohole.evaluate.results import TaskResult
from mohole.metrics import Measure
from mohole.report.choose import Chosen, choose_features, varied_snippets
from mohole.report.findings import FeatureCard, Findings, HookpointFindings, Snippet
from mohole.report.suites import suite_tables
from mohole.visible import visible, visible_lines

N_FEATURES = 20
N_EXAMPLES = 2
_CANDIDATES = 6  # examples tried until there are two different ones
_WIDE = 100  # from here on there is room for the planted concept beside the label
WIDEST = 120  # longer lines are harder to read than to scroll

# Black on amber reads on dark and on light terminals. A step for each quarter of the feature's maximum.
_HEAT = ("black on #fff1d0", "black on #ffd98a", "black on #ffb93b", "bold black on #ff8f1f")
_FAINT_SHARE = 0.1  # weaker than this share of the maximum: left unmarked where marks cannot show how weak


def print_findings(findings: Findings, console: Console) -> None:
    """Print everything, no wider than 120 columns."""
    width = min(console.width, WIDEST)
    parts: list[RenderableType] = [_heading(findings), quality_table(findings)]
    if any(place.recovery for place in findings.hookpoints):
        parts.append(recovery_tables(findings))
    for place in findings.hookpoints:
        if place.evaluation.suites:
            table = plain_table(f"Supervised and causal measurements at {place.hookpoint}")
            parts.append(suite_tables(place.evaluation, table))
    parts.append(features_list(findings, width, marks=needs_marks(console)))
    if findings.steering:
        parts.append(steering_table(findings.steering))
    for part in parts:
        console.print(part, width=width)
        console.print()


def needs_marks(console: Console) -> bool:
    return not console.is_terminal or console.no_color or console.color_system is None


def _heading(findings: Findings) -> RenderableType:
    sizes = ", ".join(f"{place.n_latents:,}" for place in findings.hookpoints[:1])
    n = len(findings.hookpoints)
    text = Text.assemble(
        (f"{n} {'dictionary' if n == 1 else 'dictionaries'} of {sizes} latents", "bold"),
        f" for {visible(findings.model)}, from {findings.n_tokens:,} tokens in {findings.n_documents:,} documents ",
        f"({visible(findings.corpus)})",
    )
    return Group(Rule(Text(f" {visible(findings.name)} ", "bold"), style="dim"), text)


def quality_table(findings: Findings) -> RenderableType:
    """One row per hookpoint: how much of the activations and of the model's behaviour the dictionary keeps."""
    table = plain_table("Quality on documents never trained on")
    table.add_column("hookpoint", no_wrap=True)
    has_tasks = any(place.evaluation.tasks for place in findings.hookpoints)
    heads = [
        "FVU",
        "L0",
        "CE\nrecovered",
        "excess CE\nnats",
        "dead\nlatents",
        *(["tasks\nclean→with" if has_tasks else ""]),
    ]
    for head in filter(None, heads):
        table.add_column(head, justify="right", no_wrap=True)
    for place in findings.hookpoints:
        measures = place.evaluation.measures
        cells = [
            _value(measures.get("fvu"), ".4f"),
            _value(measures.get("l0"), ".1f"),
            _value(measures.get("ce_recovered"), ".4f"),
            _value(measures.get("excess_ce"), "+.4f"),
            f"{_value(measures.get('dead'), '.0f')}/{place.n_latents}",
        ]
        table.add_row(place.hookpoint, *cells, *([_tasks(place)] if has_tasks else []))
    return Group(table, _note(_quality_note(findings)))


def _quality_note(findings: Findings) -> str:
    fvu, excess = (findings.hookpoints[0].evaluation.measures.get(name) for name in ("fvu", "excess_ce"))
    parts = [
        "FVU: share of the activations' variance left unexplained, 0 is perfect. CE recovered: 1 is no damage to the model's "
        "predictions, 0 is as bad as an ablation."
    ]
    if fvu and excess:
        parts.append(f"From {fvu.n:,} {fvu.n_of} and {excess.n:,} {excess.n_of}; 95 % intervals are in the report.")
    tasks = findings.hookpoints[0].evaluation.tasks
    if tasks:
        parts.append(f"Tasks: mean accuracy, clean→with the dictionary; {_prompts_of_each(tasks)} of each.")
    return " ".join(parts)


def _prompts_of_each(tasks: Sequence[TaskResult]) -> str:
    least, most = min(task.n for task in tasks), max(task.n for task in tasks)
    return f"{most:,} prompts" if least == most else f"{least:,} to {most:,} prompts"


def _tasks(place: HookpointFindings) -> str:
    tasks = place.evaluation.tasks
    return f"{mean(task.clean for task in tasks):.3f}→{mean(task.replaced for task in tasks):.3f}" if tasks else "-"


def recovery_tables(findings: Findings) -> RenderableType:
    """Planted concepts: words of all families per hookpoint, then family by family where the latents do best."""
    whole = _recovery_table("Planted concepts: median F1 of each concept's best latent, within its own family")
    alone = plain_table("Planted concepts among all text, and in all languages")
    alone.add_column("", no_wrap=True)
    heads = ("F1 among\nall tokens", "floor:\nrandom", "one latent for\nall languages", "floor:\nrandom")
    for head in heads:
        alone.add_column(head, justify="right", no_wrap=True)
    scored = [(place.hookpoint, place.recovery) for place in findings.hookpoints if place.recovery]
    for hookpoint, recovery in scored:
        if recovery.words:
            whole.add_row(hookpoint, *_family_cells(recovery.words))
            shared = recovery.multilingual
            figures = (recovery.words.f1_all_latent, recovery.words.f1_all_random, shared.share, shared.share_random)
            alone.add_row(hookpoint, *(_number(figure, ".2f") for figure in figures))
    hookpoint, best = max(scored, key=lambda pair: pair[1].words.f1.latent if pair[1].words else 0.0)
    families = _recovery_table(f"Within their families at {hookpoint}")
    for row in sorted(best.families, key=lambda row: (not row.is_words, -row.f1.latent)):
        families.add_row(visible(row.family), *_family_cells(row))
    note = (
        "Ceiling: a linear probe trained on the truth. Floors: the best single neuron, the best principal component, a "
        f"dictionary of random directions, and calling everything the concept. At {hookpoint} {len(best.unscored)} of "
        f"{len(best.unscored) + len(best.labels)} labels "
        "are too rare to score."
    )
    tried = [result for result in best.labels if result.cause]
    causes = [Text(), _cause_table(tried, hookpoint)] if tried else []
    return Group(*([whole, alone] if whole.row_count else []), families, _note(note), *causes)


def _cause_table(results: Sequence[LabelResult], hookpoint: str) -> RenderableType:
    """Whether the best detectors do anything in the model, one row for each that was tried."""
    table = plain_table(f"Detection is not cause: the best latents edited in the model, at {hookpoint}")
    table.add_column("", no_wrap=True)
    for head in ("F1", "at max", "random", "at 0", "ablated", "here"):
        table.add_column(head, justify="right", no_wrap=True)
    for result in results:
        assert result.cause is not None
        edits = result.cause.edits
        moved = (_value(edits[name].moved, "+.3f") for name in ("up", "random", "zero", "ablate"))
        table.add_row(
            visible(result.label), f"{result.latent.f1:.2f}", *moved, _value(edits["ablate"].specificity, ".2f")
        )
    return Group(
        table,
        _note(
            "Nats a prediction speaks for the concept: gained where the concept is not (held at maximum; a push as long in a "
            "random direction), or lost after the concept (held at zero; direction ablated). Here: of what ablating changes "
            "(KL), the share after the concept; 0.50 is no more there than elsewhere. Intervals are in the report."
        ),
    )


def _recovery_table(title: str) -> Table:
    table = plain_table(title)
    table.add_column("", no_wrap=True)
    heads = (
        "labels",
        "latent",
        "ceiling:\nprobe",
        "floor:\nneuron",
        "floor:\nPCA",
        "floor:\nrandom",
        "floor:\nalways",
    )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, style="bold" if head == "latent" else "")
    return table


def _family_cells(row: FamilyResult) -> list[str]:
    figures = (row.f1.latent, row.f1.probe, row.f1.neuron, row.f1.pca, row.f1.random, row.always_yes)
    return [str(row.n_labels), *(f"{value:.2f}" for value in figures)]


def features_list(findings: Findings, width: int, *, marks: bool) -> RenderableType:
    """Some twenty features, each with its label and a few of its strongest examples."""
    chosen = choose_features(findings, N_FEATURES)
    total = sum(len(place.features) for place in findings.hookpoints)
    with_concept = width >= _WIDE
    parts: list[RenderableType] = [Text(f"{len(chosen)} features of the {total:,} in the report", "bold")]
    for item in chosen:
        parts.append(Text())
        parts.append(_feature_head(item, with_concept=with_concept))
        parts.extend(_examples(item.feature, width, marks=marks))
    legend = (
        "Right of a label: its F1, how well it foretells in documents the labeller did not study where the latent exceeds "
        f"{findings.firing_share:.0%} of its maximum; the share of tokens on which the latent fires at all; its hookpoint and "
        "number. In labels, “ab…” is a token that begins a word, “ab(cd)” a token and the rest of its word."
    )
    if with_concept:
        legend += " = concept: the planted concept that the latent is, with its F1 among all tokens."
    return Group(*parts, Text(), _note(legend))


def _examples(feature: FeatureCard, width: int, *, marks: bool) -> list[Text]:
    """Two lines that differ, about different words where there are such."""
    lines: dict[str, Text] = {}
    for snippet in varied_snippets(feature, _CANDIDATES):
        line = Text("   ", no_wrap=True).append_text(snippet_line(snippet, feature.maximum, width - 3, marks=marks))
        lines.setdefault(line.plain, line)
    return list(lines.values())[:N_EXAMPLES]


def _feature_head(item: Chosen, *, with_concept: bool) -> RenderableType:
    feature = item.feature
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    f1 = "F1    -" if feature.f1 is None else f"F1 {feature.f1:.2f}"
    concept = (
        f"= {visible(feature.concept.label)} {feature.concept.f1:.2f}   " if with_concept and feature.concept else ""
    )
    facts = f"{concept}{f1}  {share(feature.density):>7}  {item.hookpoint}/{feature.latent}"
    grid.add_row(Text(visible(feature.label.text), "bold"), Text(facts, "dim"))
    return grid


def snippet_line(snippet: Snippet, maximum: float, width: int, *, marks: bool) -> Text:
    """As much of the snippet around its token as fits on one line."""
    pieces = [visible(piece) for piece in snippet.pieces]
    shares = [value / maximum if maximum else 0.0 for value in snippet.values]
    shown, room = (_marked if marks else _coloured), width
    while True:
        first, last = _window(pieces, snippet.focus, room)
        text = shown(pieces[first:last], shares[first:last])
        if text.cell_len <= width or last - first == 1:
            break
        room -= max(1, text.cell_len - width)  # marks take room too
    text.truncate(width, overflow="ellipsis")
    return text


def passage(pieces: Sequence[str], shares: Sequence[float], *, marks: bool) -> Text:
    """A whole text, over as many lines as it takes; each piece by its share of the feature's maximum."""
    text = (_marked if marks else _coloured)([visible(piece) for piece in pieces], shares)
    text.no_wrap = False
    return text


def _window(pieces: Sequence[str], focus: int, width: int) -> tuple[int, int]:
    """Grow around the token, twice as fast to the left, where the reason for firing is."""
    first, last = focus, focus + 1
    used = cell_len(pieces[focus])
    turn = 0
    while True:
        order = ("left", "right") if turn % 3 else ("right", "left")
        turn += 1
        for side in order:
            place = first - 1 if side == "left" else last
            if 0 <= place < len(pieces) and used + cell_len(pieces[place]) <= width:
                used += cell_len(pieces[place])
                first, last = (place, last) if side == "left" else (first, place + 1)
                break
        else:
            return first, last


def _coloured(pieces: Sequence[str], shares: Sequence[float]) -> Text:
    text = Text(no_wrap=True)
    for place, (piece, strength) in enumerate(zip(pieces, shares, strict=True)):
        body = piece.lstrip(" ")
        text.append(piece[: len(piece) - len(body)] if place else "")
        text.append(body, _HEAT[min(int(strength * len(_HEAT)), len(_HEAT) - 1)] if strength > 0 else "")
    return text


def _marked(pieces: Sequence[str], shares: Sequence[float]) -> Text:
    text, is_open = "", False
    for piece, strength in zip(pieces, shares, strict=True):
        is_active = strength >= _FAINT_SHARE
        if is_open and not is_active:
            text += "»"
        if is_active and not is_open:
            body = piece.lstrip(" ")
            text += piece[: len(piece) - len(body)] + "«" + body
        else:
            text += piece
        is_open = is_active
    return Text((text + ("»" if is_open else "")).removeprefix(" "), no_wrap=True)


def steering_table(shown: Demonstration) -> RenderableType:
    """Each prompt with its two continuations side by side."""
    title = (
        f"Steering: {visible(shown.label)} ({shown.hookpoint}/{shown.latent}) held at {shown.times_max:g} × its maximum"
    )
    table = Table(
        title=Text(title, "bold"),
        title_justify="left",
        box=HORIZONTALS,
        show_lines=True,
        expand=True,
        border_style="dim",
    )
    table.add_column("as the model is", ratio=1)
    table.add_column("with the feature held", ratio=1)
    for item in shown.generations:
        prompt, plain, steered = (visible_lines(text) for text in (item.prompt, item.plain, item.steered))
        table.add_row(Text.assemble((prompt, "dim"), plain), Text.assemble((prompt, "dim"), (steered, "bold")))
    n_fired, n_tokens = (
        sum(values) for values in zip(*((g.n_fired, g.n_tokens) for g in shown.generations), strict=True)
    )
    note = f"x′ = x + (c − f(x)) d with c = {shown.times_max * shown.maximum:.3g}; fired at {n_fired} of {n_tokens} tokens. "
    note += f"Encoded again, the moved row reads c (within 5 %) at {shown.reads_back:.0%} of the prompt tokens: latents overlap. "
    note += f"Chosen: {shown.chosen_by}."
    return Group(table, _note(note))


def share(value: float) -> str:
    """A share as a person reads it.

    >>> share(0.25), share(0.0123), share(0.00004)
    ('25 %', '1.2 %', '0.004 %')
    """
    percent = 100 * value
    if percent >= 10 or percent == 0:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.1g} %"


def plain_table(title: str) -> Table:
    return Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, border_style="dim", pad_edge=False)


def _note(text: str) -> RenderableType:
    return Text(text, "dim")


def _value(measure: Measure | None, form: str) -> str:
    return _number(measure.value if measure else None, form)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
