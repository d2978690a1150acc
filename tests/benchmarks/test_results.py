"""docs/results.md is the page of benchmarks/results.json, and has every method for images."""

from __future__ import annotations

import methods
import modern
import results

from robustplug.plugin.host import registry


def test_the_benchmark_has_every_method_for_images() -> None:
    known = registry()
    found = {name for name in known.names("method") if not known.get("method", name).tasks}
    # Those that learn from another run, such as distillation, need a study in which that run comes first.
    alone = {methods.method_of(name, 0.1)[0]["use"] for name in methods.METHODS}
    # Those of certificates are not for attacks; `ema` is what the row trades-ema has.
    found -= {"smooth-adv", "consistency", "macer", "smooth-mix", "denoiser", "ema"}
    found -= {"ibp", "crown-ibp", "sabr", "mtl-ibp"}
    assert found <= alone | {methods.method_of(name, 0.1)[0]["use"] for name, *_ in modern.ROWS.values()}


def test_the_page_is_that_of_the_numbers() -> None:
    sections = results.read()
    for path, text in results.made(sections).items():
        assert path.read_text(encoding="utf-8") == text, path
    assert {row.name for row in sections[0].rows} <= set(methods.METHODS)
    for section in sections:
        assert all(len(row.seeds) >= (3 if section.baseline else 5) for row in section.rows)
    assert all(section.made.startswith("`python benchmarks/methods.py ") for section in sections)
