from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_ind

from robustplug.core.measures import Measure
from robustplug.core.types import Result
from robustplug.report.pages.compared import (
    comparison_csv,
    comparison_markdown,
    comparison_notes,
    comparison_page,
    comparison_sheets,
)
from robustplug.report.tables.comparison import Comparison, compare
from robustplug.report.tables.sheets import rich_tables
from robustplug.report.tables.statistics import front, mcnemar, mean_interval, welch

from .runs import LINF, TRAINING, bits, pgd, plain, result, row, run, study


def shown(found: Comparison, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    for sheet in comparison_sheets(found):
        console.print(*rich_tables(sheet, width), sep="\n")
    console.print(*comparison_notes(found), sep="\n")
    return console.export_text()


def test_mcnemar_is_the_binomial_test_of_what_only_one_is_right_on() -> None:
    one, other = [True] * 9 + [False] * 2 + [True] * 5, [False] * 9 + [True] * 2 + [True] * 5
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert mcnemar(one, other) == pytest.approx(2 * tail)
    assert mcnemar(one, one) == 1


def test_intervals_and_tests_over_seeds() -> None:
    # t(0.975; 2) = 4.302653, of any table.
    low, high = mean_interval([0.5, 0.6, 0.7])
    assert (low, high) == pytest.approx((0.6 - 4.302653 * 0.1 / 3**0.5, 0.6 + 4.302653 * 0.1 / 3**0.5))
    assert mean_interval([0.99, 1.0])[1] == 1
    assert welch([0.5, 0.51, 0.52], [0.7, 0.71, 0.72]) < 0.001 < 0.3 < welch([0.5, 0.6], [0.5, 0.61])
    for one, other in itertools.permutations(([0.5, 0.52, 0.6], [0.61, 0.62], [0.3, 0.9, 0.5, 0.55]), 2):
        assert welch(one, other) == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue)
    assert (welch([0.5, 0.5], [0.5, 0.5]), welch([0.5, 0.5], [0.6, 0.6])) == (1, 0)


def test_the_front_is_what_nothing_beats() -> None:
    points = list(itertools.product(range(3), repeat=2))
    assert [p for p, on in zip(points, front(points), strict=True) if on] == [(2, 2)]
    points = [(0, 2), (1, 1), (2, 0), (0, 0), (1, 1), (0, 1)]
    assert front(points) == [True, True, True, False, True, False]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    cheap = {**TRAINING, "forwards_per_sample": 1.0, "backwards_per_sample": 1.0}
    return [
        run(tmp_path / "plain", plain(95, 20, training=cheap)),
        run(tmp_path / "robust", plain(85, 60, method="cat")),
        run(tmp_path / "worse", plain(84, 58, method="trades")),
    ]


def test_the_best_is_marked_and_what_is_not_told_apart_from_it(three: list[Path]) -> None:
    (group,) = compare(three).groups
    clean, robust = group.columns
    assert [(v.best, v.tied) for v in clean.values if v] == [(True, False), (False, False), (False, False)]
    # 60 and 58 of 100, two samples apart: p = 0.5; of 20 and 60 it is tiny.
    assert [(v.best, v.tied) for v in robust.values if v] == [(False, False), (True, False), (False, True)]
    assert group.pareto == (True, True, False)
    assert group.frugal == (True, True, False)
    text = shown(compare(three))
    assert re.search(r"│ robust +│ cat +│ +85\.0% \(77–91\) │ +60\.0% \(50–69\) \* │ +◆ │", text)
    assert "58.0% (48–67) ≈" in text
    assert "linf, eps = 0.1" in text
    # By cost: 2 epochs of 1 + 1 passes, then of 4 + 4.
    costs = text.partition("by training cost")[2]
    assert costs.index("plain") < costs.index("robust ")
    assert re.search(r"plain +│ +2 │ +2\.0 │ +2\.0 │ +3\.0 │", costs)


def test_the_worst_case_is_of_all_attacks_that_every_line_has(tmp_path: Path) -> None:
    def alone(right: tuple[bool, ...], **changes: Any) -> Any:
        return pgd(right, chain="", **changes)

    rows = [row("clean", bits(90)), alone(bits(50)), alone(bits(50, first=30), steps=20)]
    wide = {**LINF, "eps": 0.3}
    one = run(tmp_path / "a", result(*rows, alone(bits(10), threat=wide, name="pgd far")))
    other = run(tmp_path / "b", result(*rows))
    (group,) = compare([one, other]).groups
    assert group.robust is not None
    assert [value.mean for value in group.robust.values if value] == [0.2, 0.2]
    assert group.threat == LINF
    assert "worst case of 2 attacks" in shown(compare([one, other]))
    (note,) = group.notes
    assert note == "pgd far: only run on a at linf, eps = 0.3 (76.5/255)."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threat": {**LINF, "eps": 0.2}}, "elsewhere at linf, eps = 0.2 (51/255)"),
        ({"options": {"use": "pgd", "steps": 10, "step_size": 1}}, "only run on a at linf"),
        ({"name": "pgd (steps=20)"}, "pgd (steps=20): only run on b"),
        ({"shift": {"use": "corruption", "kind": "fog"}}, "only run on b"),
    ],
)
def test_other_radii_and_attacks_are_not_compared(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    one = run(tmp_path / "a", plain(90, 50))
    other = run(tmp_path / "b", result(row("clean", bits(80)), pgd(bits(70), **change)))
    found = compare([one, other])
    assert [column.name for column in found.groups[0].columns] == ["clean"]
    assert found.groups[0].robust is None
    assert not any(found.groups[0].pareto)
    text = shown(found, 400)
    assert said in text
    assert "no front" in text
    assert "50.0%" not in text


def test_what_comes_after_other_attacks_is_not_compared(tmp_path: Path) -> None:
    one = run(tmp_path / "a", plain(90, 50))
    before = row("fgsm", bits(60), options={"use": "fgsm"}, threat=LINF, chain="main")
    other = run(tmp_path / "b", result(row("clean", bits(80)), before, pgd(bits(50))))
    text = shown(compare([one, other]), 400)
    assert "elsewhere after other attacks" in text
    again = run(tmp_path / "c", result(row("clean", bits(80)), before, pgd(bits(50))))
    assert len(compare([other, again]).groups[0].columns) == 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (result(row("clean", bits(80, 50)), pgd(bits(40, 50))), "samples 50 instead of 100"),
        (plain(90, 50, task="mnist"), "task mnist instead of digits"),
        (plain(90, 50, samples_digest="e" * 64), "samples_digest eeeeeeeeeeee instead of dddddddddddd"),
    ],
)
def test_other_samples_are_another_table(tmp_path: Path, other: Any, said: str) -> None:
    found = compare([run(tmp_path / "a", plain(90, 50)), run(tmp_path / "b", other)])
    assert len(found.groups) == 2
    assert f"Table 2 cannot be compared with table 1: {said}." in shown(found)
    assert "*" not in shown(found).replace("Bold or *", "")


def test_results_without_a_digest_are_told_apart_by_the_options_of_the_task(tmp_path: Path) -> None:
    old = plain(90, 50, samples_digest=None)
    one, same = run(tmp_path / "a", old, test=300), run(tmp_path / "b", old, test=300)
    other = run(tmp_path / "c", plain(90, 50), test=200)
    found = compare([one, same, other])
    assert [len(group.entries) for group in found.groups] == [2, 1]
    assert "task.test 200 instead of 300" in shown(found)


def test_options_that_differ_though_the_samples_do_not_are_said(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a", plain(9, 5), size=8), run(tmp_path / "b", plain(9, 5), size=16)
    found = compare([one, other])
    assert len(found.groups) == 1
    assert "task.size differs: 8 in a; 16 in b." in shown(found)


def test_a_suite_is_compared_instead_and_costs_are_those_of_the_run(tmp_path: Path) -> None:
    suite = {"quick": plain(91, 40, training={})}
    one = run(tmp_path / "a", plain(90, 50), suite)
    found = compare([one, run(tmp_path / "b", plain(90, 50))], "quick")
    (group,) = found.groups
    assert [value.mean for column in group.columns for value in column.values if value] == [0.91, 0.4]
    assert group.costs[0] is not None
    assert group.costs[0].forwards == 8
    assert found.left_out == {str(tmp_path / "b"): found.left_out[str(tmp_path / "b")]}
    assert f"robustplug evaluate {tmp_path / 'b'} --suite quick" in found.left_out[str(tmp_path / "b")]
    file = one / "evaluations" / "quick.json"
    assert compare([file]).groups[0].entries[0].name == "quick"


def test_a_study_gives_a_line_for_each_cell(tmp_path: Path) -> None:
    cells: dict[str, Sequence[Result | None]] = {
        "lr=1": [plain(80, 50), plain(90, 60), plain(85, 55)],
        "lr=2": [plain(81, 20), None, plain(83, 21)],
    }
    found = compare([study(tmp_path / "s", cells)])
    (group,) = found.groups
    assert [entry.name for entry in group.entries] == ["lr=1", "lr=2"]
    first = group.columns[1].values[0]
    assert first is not None
    assert first.mean == pytest.approx(0.55)
    assert (first.low, first.high) == pytest.approx(mean_interval([0.5, 0.6, 0.55]))
    assert list(found.left_out.values()) == ["failed: no memory"]
    text = shown(found)
    assert "Student's over the seeds" in text
    assert re.search(r"lr=2 .*│ +2 │", text)


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    good = run(tmp_path / "good", plain(90, 50))
    unfinished = run(tmp_path / "unfinished", None)
    broken = run(tmp_path / "broken", None)
    (broken / "result.json").write_text('{"format": 2, "attacks": [')
    old = run(tmp_path / "old", None)
    (old / "result.json").write_text('{"format": 1}')
    (tmp_path / "empty").mkdir()
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "result.json").write_text('{"cells": 3}')
    bare = tmp_path / "list.json"
    bare.write_text("[]")
    wrong = [unfinished, broken, old, tmp_path / "empty", strange, bare, tmp_path / "absent"]
    found = compare([good, *wrong, good])
    assert [entry.name for entry in found.groups[0].entries] == ["good"]
    assert list(found.left_out) == [str(path) for path in wrong]
    reasons = ["robustplug train --resume", "is not valid JSON", "evaluate the model again", "neither a run"]
    reasons += ["result.json is not as it was written", "not contain a JSON object", "does not exist"]
    assert all(part in text for part, text in zip(reasons, found.left_out.values(), strict=True))
    assert all(
        f"left out: {name}" in line
        for name, line in zip(found.left_out, comparison_notes(found), strict=True)
    )


def test_lines_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [run(tmp_path / side / "run", plain(9, 5)) for side in "ab"]
    assert [entry.name for entry in compare(paths).groups[0].entries] == [str(path) for path in paths]


@pytest.mark.parametrize("width", [30, 60, 200])
def test_a_narrow_terminal_has_all_numbers(three: list[Path], width: int) -> None:
    text = shown(compare(three), width)
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()).count("95.0%") == 1


def test_csv_has_every_number(three: list[Path]) -> None:
    lines = list(csv.DictReader(io.StringIO(comparison_csv(compare(three)))))
    assert [(line["run"], line["row"]) for line in lines] == [
        (name, column) for column in ("clean", "pgd (steps=10)") for name in ("plain", "robust", "worse")
    ]
    assert lines[4]["accuracy"] == "0.6"
    assert float(lines[4]["low"]) == pytest.approx(0.502, abs=1e-3)  # Wilson 1927
    assert [line["best"] for line in lines[3:]] == ["0", "1", "0"]
    assert [line["forwards"] for line in lines[:3]] == ["2.0", "8.0", "8.0"]


def test_markdown_is_a_table_with_bold_numbers(tmp_path: Path) -> None:
    odd = run(tmp_path / "a|b*", plain(90, 50))
    text = comparison_markdown(compare([odd, run(tmp_path / "b", plain(80, 20)), tmp_path / "absent"]))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:4]}) == 1
    assert "| a\\|b\\* | erm | **90.0% (83–94)** | **50.0% (40–60)** |" in text
    assert f"- left out: {tmp_path / 'absent'} does not exist" in text


class Page(HTMLParser):
    """Check that tags are closed in order, and collect what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        elif tag not in ("meta", "link"):
            self.open.append(tag)
        assert "onload" not in dict(attrs)
        # Nothing outside of the page is linked.
        assert (dict(attrs).get("href") or "#").startswith(("#", "data:"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(three: list[Path], tmp_path: Path) -> None:
    found = compare([*three, run(tmp_path / "<script>", plain(70, 30))])
    text = comparison_page("a & b", found)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len(page.images) == 2
    assert all(image.startswith("data:image/svg+xml;base64,") for image in page.images)
    assert "<script" not in text
    assert all(part in page.text for part in ("a & b", "60.0% (50–69)", "<script>", "◆"))
    assert comparison_page("a & b", found) == text


def negotiated(target: float, adversary: float) -> Result:
    said = [
        {"name": "target", "better": "higher", "share": False, "headline": True},
        {"name": "adversary", "better": "lower", "share": False, "headline": True},
        {"name": "turns", "better": "", "share": False, "headline": False},
    ]
    scores = {"target": target, "adversary": adversary, "turns": 4.0}
    measures = {name: Measure(mean, mean - 0.5, mean + 0.5, 100) for name, mean in scores.items()}
    talk = row("partner", bits(60), options={"use": "partner"}, measures=measures)
    return result(row("clean", bits(100)), talk, quantities=said)


def test_tasks_that_show_measures_are_compared_by_them(tmp_path: Path) -> None:
    paths = [
        run(tmp_path / "a", negotiated(6.0, 5.0)),
        run(tmp_path / "b", negotiated(7.0, 5.5)),
        study(tmp_path / "s", {"one": [negotiated(6.5, 4.0), negotiated(6.7, 4.4)]}),
    ]
    found = compare(paths)
    (sheet,) = comparison_sheets(found)
    assert sheet.heads == ("attack", "run", "target", "adversary")
    # The clean row has no measures: there is nothing to compare.
    assert [[cell.text for cell in line[:3]] for line in sheet.lines] == [
        ["partner", "a", "6.00 ±0.50"],
        ["partner", "b", "7.00 ±0.50"],
        ["partner", "one", "6.60 ± 0.14"],
    ]
    assert [[cell.best for cell in line[2:]] for line in sheet.lines] == [
        [False, False],
        [True, False],
        [False, True],
    ]
    page = comparison_page("x", found)
    assert "6.60 ± 0.14" in page
    assert "Accuracy with its" not in page


def test_the_samples_of_an_evaluation_have_a_digest() -> None:
    import robustplug

    task = {"use": "digits", "test": 40, "validation": 40}
    info = robustplug.build("task", "digits", test=40, validation=40).info
    model = robustplug.build("model", "small-cnn", info=info, width=2, hidden=4)

    def digest(**options: Any) -> Any:
        asked = {"task": task, "attacks": ["fgsm"], "vicinity": LINF, "device": "cpu", "batch_size": 16}
        return robustplug.evaluate(model, **{**asked, **options}).meta["samples_digest"]

    first = digest()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert digest(batch_size=40, attacks=["none"], seed=3) == first
    others = [digest(samples=20), digest(split="validation"), digest(task={**task, "test": 30})]
    assert len({first, *others}) == 4
