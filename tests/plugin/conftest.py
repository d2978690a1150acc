from __future__ import annotations

from pathlib import Path

import pytest

from .fakes import Plugin, write_plugin


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Write a plugin of a name and a source; gives its entry point."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, source: write_plugin(tmp_path, name, source)
