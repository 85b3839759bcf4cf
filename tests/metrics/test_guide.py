"""The guide to metrics names what there is."""

import re
from pathlib import Path

from mohole.metrics import expected_max_cosine
from mohole.metrics.mutants import MUTANTS

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_number_of_an_evaluation_is_in_the_guide() -> None:
    source = Path(__file__).resolve().parents[2] / "src" / "mohole" / "evaluate" / "rows"
    text = (source / "sums.py").read_text() + (source / "weights.py").read_text()
    names = re.findall(r'(?:_of_rows\(|Reading\(|^ +\()"(\w+)"', text, re.MULTILINE)
    assert len(names) == 21
    assert [name for name in names if f"`{name}`" not in GUIDE] == []


def test_the_null_is_as_the_guide_says() -> None:
    for line in GUIDE.splitlines():
        cells = [cell.strip().replace(" ", "") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit() and cells[1].isdigit():
            assert f"{expected_max_cosine(int(cells[0]), int(cells[1])):.3f}" == cells[2]


def test_what_catches_each_bug_that_shipped_is_there() -> None:
    section = GUIDE.split("## Bugs that shipped, one by one")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d+\*? \|", line)]
    assert [int(re.findall(r"\d+", line)[0]) for line in lines] == list(range(1, 25))
    root = Path(__file__).resolve().parents[2]
    tests = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    guards = "".join(path.read_text(encoding="utf-8") for path in (root / "src/mohole/evaluate/guards").glob("*.py"))
    mutants = {mutant.name for mutant in MUTANTS}
    for line in lines:
        named = re.findall(r"`([^`]+)`", line.split("|")[4])
        assert named, line
        for name in named:
            assert name in mutants or f"def {name}(" in tests or f'"{name}"' in guards, name
