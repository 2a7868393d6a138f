"""What the gate writes for people keeps within the limits of where it is read."""

import pytest

from robustbench_lite.checking import Checked
from robustbench_lite.gate import Counts, Rule, decided
from robustbench_lite.gate_files import ANNOTATIONS, SUMMARY_BYTES, as_annotations, as_markdown

ROW = "| {} | pgd | 90.0 | 80.0 |"


def lost(number: int, name: str = "n\u00e9t") -> Checked:
    """A model that lost 20 of 200 samples."""
    model = f"{name}-{number}"
    findings = decided([Counts("pgd", lost=20, gained=0, n=200, before=180)], Rule())
    ids = tuple(f"{number}-{i}" for i in range(20))
    return Checked(model, findings, {"pgd": ids}, (), 200, 200, 1.0, "digits")


@pytest.mark.parametrize("count", [1, 100, 2_000])
def test_a_summary_keeps_to_64_kib_and_is_cut_between_lines(count):
    every = [lost(i) for i in range(count)]
    text = as_markdown(every)
    size = len(text.encode())
    assert size <= SUMMARY_BYTES == 65_536
    rows = [line for line in text.splitlines() if line.startswith("| n\u00e9t-")]
    told = [line for line in text.splitlines() if line.startswith("Lost by ")]
    if count < 2_000:
        assert (len(rows), len(told)) == (count, count)
        assert told[0].endswith(", 0-9 and 10 more")
        assert "cut" not in text
        return
    assert size > SUMMARY_BYTES - 200
    assert text.endswith("(cut: the whole is in the JSON file)\n")
    assert all(row.endswith(" FAIL |") for row in rows)
    assert [row.split()[1] for row in rows] == [one.model for one in every[: len(rows)]]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (10, 10), (25, 10)])
def test_at_most_ten_annotations(count, shown):
    lines = as_annotations([lost(i) for i in range(count)])
    assert len(lines) == shown <= ANNOTATIONS
    assert all(line.startswith("::error") and "\n" not in line for line in lines)


def test_a_model_s_name_cannot_write_an_annotation_of_its_own():
    (line,) = as_annotations([lost(0, name="net\n::warning::%0Aall is well\r")])
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::error")
    assert "%250Aall" in line
