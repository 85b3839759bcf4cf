"""The guide to metrics names what there is."""

from pathlib import Path

from mohole.metrics import expected_max_cosine

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_number_of_an_evaluation_is_in_the_guide() -> None:
    source = Path(__file__).resolve().parents[2] / "src" / "mohole" / "evaluate" / "rows"
    text = (source / "sums.py").read_text() + (source / "weights.py").read_text()
    names = [line.split('"')[1] for line in text.splitlines() if line.strip().startswith(('Row("', '("'))]
    assert len(names) >= 17
    assert [name for name in names if f"`{name}`" not in GUIDE] == []


def test_the_null_is_as_the_guide_says() -> None:
    for line in GUIDE.splitlines():
        cells = [cell.strip().replace(" ", "") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            assert f"{expected_max_cosine(int(cells[0]), int(cells[1])):.3f}" == cells[2]
