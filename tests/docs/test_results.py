"""docs/results.md tells what every method is worth."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from robustplug.plugin.host import registry

from .generated import ROOT


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "methods.py"))


def test_the_benchmark_has_every_method_for_images(benchmark: dict[str, Any]) -> None:
    known = registry()
    methods = {name for name in known.names("method") if not known.get("method", name).tasks}
    assert methods <= {benchmark["method_of"](name, 0.1)[0]["use"] for name in benchmark["METHODS"]}


def test_the_results_have_every_method(benchmark: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
        assert [row[0].strip("`") for row in rows] == benchmark["METHODS"]
        assert all(re.fullmatch(r"[\d.]+", number) for row in rows for number in row[1:5])
        assert re.search(r"^`.*python benchmarks/methods\.py .*`, \d{4}-\d\d-\d\d, torch", part, re.M)


def test_a_section_replaces_that_of_the_same_heading(benchmark: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    for text in ("## a\n\nold\n", "## b\n\nkept\n", "## a\n\nnew\n"):
        benchmark["put"](page, text)
    assert page.read_text(encoding="utf-8") == "# Results\n\n## b\n\nkept\n\n## a\n\nnew\n"
