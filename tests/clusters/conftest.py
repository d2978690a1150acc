from __future__ import annotations

from pathlib import Path

import pytest

from .common import run, write_study


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the study that this machine made alone."""
    file = write_study(tmp_path_factory.mktemp("local"), [0, 1, 2], 6)
    done = run(file, "local")
    assert done.returncode == 0, done.stderr
    return file.parent / "local"
