"""A plugin that `robustplug new-plugin` writes: it installs and passes its tests as it is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from robustplug.plugin.host import PluginHost
from robustplug.plugin.scaffold import write_plugin
from robustplug.recipe.load import read_recipe
from robustplug.testing.kit import all_checks
from tests.cli.conftest import run_cli
from tests.training.runs import offered

from .conftest import Environment
from .test_downstream import EXAMPLE

FILES = {
    ".github/workflows/tests.yml",
    ".gitignore",
    "pyproject.toml",
    "recipes/try-this-digits.toml",
    "robustplug_try_this/README.md",
    "robustplug_try_this/__init__.py",
    "robustplug_try_this/method.py",
    "tests/test_try_this.py",
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    result = run_cli("new-plugin", "try-this")
    assert result.exit_code == 0, result.output
    assert "robustplug train --recipe recipes/try-this-digits.toml" in result.output
    folder = tmp_path / "robustplug-try-this"
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustplug_try_this"]:
        del sys.modules[name]


def test_a_new_plugin_is_complete(written: Path) -> None:
    files = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert files == FILES
    for name in files:
        text = (written / name).read_text()
        assert not {"my-method", "my_method", "MyMethod", "TODO"} & {*text.split(), *text.split('"')}
        if name.endswith(".py"):
            ast.parse(text)
    project = tomllib.loads((written / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["robustplug"] == {"try-this": "robustplug_try_this"}


def test_a_new_plugin_loads_and_conforms(written: Path) -> None:
    point = metadata.EntryPoint("try-this", "robustplug_try_this", "robustplug")
    installed = [(p, "robustplug", "0") for p in metadata.entry_points(group="robustplug")]
    loaded = PluginHost([*installed, (point, "robustplug-try-this", "0.1.0")])
    registry = loaded.registry()
    assert not registry.broken
    component = registry.get("method", "try-this")
    assert component.load().__name__ == "TryThis"
    recipe = read_recipe(written / "recipes" / "try-this-digits.toml", registry=registry)
    assert recipe.method.options.alpha == 0.5
    # All of them are run where it is installed, by the slow test below.
    quick = {"views_stay_in_the_vicinity", "radius_zero_changes_nothing", "options_round_trip"}
    with offered("method", component):
        checks = [check for check in all_checks("try-this", "method") if check.name in quick]
        assert checks
        for check in checks:
            check()


def test_the_example_has_the_files_that_a_new_plugin_has(tmp_path: Path) -> None:
    """What the template and the example share is the same in both."""
    write_plugin("alp", tmp_path)
    for name in (".gitignore", ".github/workflows/tests.yml"):
        assert (tmp_path / name).read_text() == (EXAMPLE / name).read_text()
    new, example = (tomllib.loads((root / "pyproject.toml").read_text()) for root in (tmp_path, EXAMPLE))
    for project in (new, example):
        del project["project"]["version"], project["project"]["description"]
    assert new == example


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My_Method", "is not kebab-case"),
        ("2-steps", "starting with a letter"),
        ("trades", 'a plugin named "trades" is installed'),
        ("small-cnn", 'there is a model named "small-cnn"'),
    ],
)
def test_names_that_cannot_be_are_refused(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_cli("new-plugin", name)
    assert result.exit_code == 2
    assert why in result.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    result = run_cli("new-plugin", "Try", "--out", tmp_path)
    assert result.exit_code == 2
    assert "already exists" in result.output
    assert "kebab-case" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    result = run_cli("new-plugin", "try-this", "--out", tmp_path / "mine" / "x")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


@pytest.mark.slow
def test_a_new_plugin_installs_trains_and_passes_its_tests(environment: Environment) -> None:
    environment.run("robustplug", "new-plugin", "try-this")
    project = environment.folder / "robustplug-try-this"
    environment.run("python", "-m", "pip", "install", ".", cwd=project)
    listed = environment.run("robustplug", "plugins")
    assert "robustplug-try-this 0.1.0" in listed
    output = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert " passed" in output
    assert "failed" not in output
    environment.run("robustplug", "train", "--recipe", "recipes/try-this-digits.toml", cwd=project)
    result = json.loads((project / "runs" / "try-this-digits" / "result.json").read_text())
    clean, attacked = (row["accuracy"] for row in result["attacks"])
    assert clean > 0.5
    assert 0.2 < attacked <= clean
    subprocess.run([sys.executable, "-m", "ruff", "check", project], check=True)
    mypy = [sys.executable, "-m", "mypy", "--strict", "robustplug_try_this"]
    subprocess.run(mypy, cwd=project, check=True)
