from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from robustplug.core.measures import wilson_interval
from robustplug.core.types import AttackResult, EpochReport, Progress, Result, RunInfo
from robustplug.report.console import RichReporter, loss_parts, validation_text
from robustplug.report.tables.results import caption, result_table
from robustplug.report.tables.threats import threat_text

RUN = RunInfo("cat-digits", "runs/cat-digits [2]", "cat", "digits", "small-cnn", 12)
REPORT = EpochReport(
    2,
    {"loss": 1.5, "loss/ce": 1.0, "loss/margin": 0.5, "accuracy/adv": 0.625},
    {"clean": 0.972, "robust": 0.611},
    0.1,
    3.21,
    True,
)
META: dict[str, Any] = {
    "name": "cat-digits",
    "task": "digits",
    "seconds": 2.25,
    "training": {
        "epochs": 12,
        "forwards_per_sample": 11.5,
        "backwards_per_sample": 11.0,
        "seconds": 61.0,
    },
}


def row(name: str, accuracy: float, broken: int, attempted: int, rejected: int = 0) -> AttackResult:
    return AttackResult(name, {}, accuracy, broken, attempted, rejected, 1234.5, 50.0, 1.25)


RESULT = Result(
    "test",
    10,
    {"use": "linf", "eps": 0.1},
    (
        row("clean", 0.9, 1, 10),
        row("pgd (steps=50, restarts=5, loss=margin, target=least-likely)", 0.5, 4, 9, 2),
    ),
    META,
)

# Brown, Cai and DasGupta 2001; statsmodels' proportion_confint(method="wilson") gives the same.
WILSON = [
    (0, 10, 0.0, 0.2775),
    (5, 10, 0.2366, 0.7634),
    (10, 10, 0.7225, 1.0),
    (0, 1, 0.0, 0.7935),
    (1, 1, 0.2065, 1.0),
    (360, 1000, 0.3308, 0.3902),
    (0, 0, 0.0, 1.0),
]


@pytest.mark.parametrize(("right", "total", "low", "high"), WILSON)
def test_wilson_interval(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_holds_the_share_and_narrows() -> None:
    widths = []
    for total in (10, 100, 1000):
        for right in range(0, total + 1, total // 10):
            low, high = wilson_interval(right, total)
            assert 0 <= low <= right / total <= high + 1e-12 <= 1 + 1e-12
            # Mirrored: what is right and what is wrong change places.
            assert wilson_interval(total - right, total) == pytest.approx((1 - high, 1 - low))
        low, high = wilson_interval(total // 2, total)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert wilson_interval(5, 10, z=0.0) == (0.5, 0.5)


LOSSES: list[tuple[dict[str, float], str]] = [
    ({"loss": 1.2345}, "loss 1.234"),
    ({"loss": 1.2, "loss/ce": 1.2}, "loss 1.200"),
    ({"loss": 1.5, "loss/ce": 1.0, "loss/margin": 0.5}, "loss 1.500 (ce 1.000, margin 0.500)"),
    ({"loss": 1.0, "accuracy/adv": 0.625}, "loss 1.000 · adv acc 62.5%"),
    ({"loss": 1.0, "eps": 0.031372}, "loss 1.000 · eps 0.03137"),
    (
        {"eps": 0.1, "accuracy/clean": 1.0, "loss/a": 1.0, "loss": 3.0, "loss/b": 2.0},
        "loss 3.000 (a 1.000, b 2.000) · clean acc 100.0% · eps 0.1",
    ),
]


@pytest.mark.parametrize(("means", "text"), LOSSES)
def test_loss_parts(means: dict[str, float], text: str) -> None:
    assert loss_parts(means) == text


def test_small_texts() -> None:
    assert validation_text({"clean": 0.972, "robust": 0.611}) == "clean 97.2%, robust 61.1%"
    assert threat_text({"use": "linf", "eps": 8 / 255}) == "linf, eps = 0.03137 (8/255)"
    assert threat_text({"use": "free"}) == "free"


def printed(result: Result, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(result_table(result))
    return console.export_text()


def test_the_table_holds_what_was_measured() -> None:
    text = printed(RESULT, 140)
    assert "cat-digits · digits test split, 10 samples" in text
    clean, attacked = [line.split("│") for line in text.splitlines() if "│" in line]
    assert [cell.strip(" │┃") for cell in clean[1:-1]] == [
        "clean", "90.0% (60–98)", "1/10", "1,234.5", "50.0", "1.2 s",
    ]  # fmt: skip
    assert attacked[2].strip().startswith("50.0% (")
    assert attacked[3].strip() == "4/9"


@pytest.mark.parametrize("width", [100, 60])
def test_the_table_fits_its_terminal(width: int) -> None:
    text = printed(RESULT, width)
    assert max(map(len, text.splitlines())) <= width
    assert {"90.0%", "50.0%"} <= set(re.findall(r"\d+\.\d%", text))
    joined = re.sub(r"[│\s]", "", text)
    assert "restarts=5" in joined or width < 100


def test_the_caption_says_how_to_read_it() -> None:
    text = caption(RESULT)
    assert "linf, eps = 0.1 (25.5/255)" in text
    assert all(part in text for part in ("12 epochs", "11.5 forwards", "11.0 backwards", "61 s", "2.2 s"))
    assert "2 results left the threat model" in text
    bare = caption(Result("test", 1, {"use": "linf"}, (row("clean", 1.0, 0, 1),), {"seconds": 1.0}))
    assert "Training" not in bare
    assert "left the threat model" not in bare


def test_an_evaluation_without_training_has_a_table() -> None:
    meta = {"name": "Linear", "task": "digits", "training": {}, "seconds": 0.1}
    result = Result("test", 1, {"use": "linf"}, (row("clean", 1.0, 0, 1),), meta)
    assert "Linear · digits test split, 1 samples" in printed(result, 100)


def tell_all(reporter: RichReporter) -> None:
    reporter.begin(RUN, Progress(0, 12, 0, 20, 0, 240))
    reporter.batch(Progress(2, 12, 7, 20, 47, 240), {"loss": 2.345, "accuracy/adv": 0.5})
    reporter.epoch(REPORT, 12)
    reporter.warn("something [odd] happened")
    reporter.attack("clean", 5, 10)
    reporter.attack("pgd (steps=50)", 5, 10)
    reporter.attack("pgd (steps=50)", 12, 10)


LINES = [
    "cat on digits with small-cnn, 12 epochs → runs/cat-digits [2]",
    "epoch  3/12 · loss 1.500 (ce 1.000, margin 0.500) · adv acc 62.5% · "
    "validation clean 97.2%, robust 61.1% · 3.2 s · best",
    "something [odd] happened",
]


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    file = io.StringIO()
    with RichReporter(Console(file=file, width=200, force_terminal=False)) as reporter:
        tell_all(reporter)
    assert file.getvalue().splitlines() == LINES


def test_a_quiet_console_says_nothing() -> None:
    file = io.StringIO()
    with RichReporter(Console(file=file, width=200, quiet=True)) as reporter:
        tell_all(reporter)
    assert file.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_and_the_same_lines() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, record=True, legacy_windows=False)
    with RichReporter(console) as reporter:
        reporter.begin(RUN, Progress(1, 12, 5, 20, 25, 240))
        reporter.batch(Progress(2, 12, 7, 20, 47, 240), {"loss": 2.345})
        live = reporter._live
        assert live is not None
        live.refresh()
        assert "epoch 3/12" in file.getvalue()
        assert "47/240" in file.getvalue()
        assert "loss 2.345" in file.getvalue()
        reporter.epoch(REPORT, 12)
        reporter.attack("pgd (steps=50)", 12, 10)
        live.refresh()
        assert "evaluating: pgd (steps=50)" in file.getvalue()
        assert "10/10" in file.getvalue()
    assert "cat on digits with small-cnn" in console.export_text()
    assert "\x1b[?25h" in file.getvalue(), "the cursor is not shown again"


def test_going_on_says_so_and_the_bar_starts_there() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, legacy_windows=False)
    again = RunInfo("a", "runs/a", "cat", "digits", "small-cnn", 12, resumed_at_epoch=4)
    with RichReporter(console) as reporter:
        reporter.begin(again, Progress(4, 12, 5, 20, 85, 240))
        assert reporter._live is not None
        reporter._live.refresh()
    assert "resuming at epoch 5" in file.getvalue()
    assert "85/240" in file.getvalue()


def test_the_bar_is_taken_down_after_an_error() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, legacy_windows=False)
    reporter = RichReporter(console)
    reporter.begin(RUN, Progress(0, 12, 0, 20, 0, 240))
    with pytest.raises(RuntimeError, match="boom"), reporter:
        raise RuntimeError("boom")
    with Live(console=console):  # an old bar would be in the way
        pass
