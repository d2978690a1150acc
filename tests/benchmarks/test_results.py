"""docs/results.md is the page of benchmarks/results.json, and has every method for images."""

from __future__ import annotations

import methods
import results

from robustplug.plugin.component import slots
from robustplug.plugin.host import registry


def test_the_benchmark_has_every_method_for_images() -> None:
    known = registry()
    # Those that learn from another run, such as distillation, have no budget of their own yet.
    found = {
        name
        for name in known.names("method")
        if not known.get("method", name).tasks
        and not any(slot.kind == "model" for slot in slots(known.get("method", name).options).values())
    }
    assert found <= {methods.method_of(name, 0.1)[0]["use"] for name in methods.METHODS}


def test_the_page_is_that_of_the_numbers() -> None:
    sections = results.read()
    for path, text in results.made(sections).items():
        assert path.read_text(encoding="utf-8") == text, path
    assert {row.name for row in sections[0].rows} <= set(methods.METHODS)
    assert all(len(row.seeds) >= 5 for section in sections for row in section.rows)
    assert all(section.made.startswith("`python benchmarks/methods.py ") for section in sections)
