from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robustplug.cli import main
from robustplug.plugin.host import host, registry

Invoke = Callable[..., Result]
Install = Callable[..., str]

_numbers = itertools.count()


def run_cli(*arguments: str | Path) -> Result:
    """Run the command line in this process; anything but a plain exit is a traceback, and fails."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"traceback from {arguments}") from result.exception
    return result


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command line in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    return run_cli


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install plugins of a name and a source, as packages with metadata; gives the package's name."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    packages: list[str] = []

    def look_again() -> None:
        importlib.invalidate_caches()
        host.cache_clear()
        registry.cache_clear()
        for name in ("_declared", "_hooked"):
            vars(main).pop(name, None)

    def add(name: str, source: str, commands: str = "") -> str:
        package = f"cli_plugin_{next(_numbers)}"
        packages.append(package)
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(source, encoding="utf-8")
        info = folder / f"{package}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(
            f"[robustplug]\n{name} = {package}\n{commands.format(package)}"
        )
        look_again()
        return package

    yield add
    for package in packages:
        sys.modules.pop(package, None)
    look_again()
