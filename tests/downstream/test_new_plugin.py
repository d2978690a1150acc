"""A plugin that `robustplug new-plugin` writes: it installs and passes its tests as it is."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import cast

import pytest

from robustplug.plugin.component import Kind
from robustplug.plugin.host import PluginHost
from robustplug.plugin.names import SCAFFOLDS
from robustplug.plugin.scaffold import write_plugin
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe
from robustplug.recipe.toml.files import bundled_recipes, find_recipe, find_study, find_suite
from robustplug.testing.kit import all_checks
from tests.cli.conftest import run_cli
from tests.training.runs import offered

from .conftest import Environment, install
from .test_downstream import EXAMPLE

FILES = {
    ".github/workflows/tests.yml",
    ".gitignore",
    "pyproject.toml",
    "robustplug_try_this/README.md",
    "robustplug_try_this/__init__.py",
    "robustplug_try_this/recipes/try-this.toml",
    "tests/test_try_this.py",
}
# All checks are run where a plugin is installed, by the slow tests below.
QUICK = {
    "method": {"views_stay_in_the_vicinity", "radius_zero_changes_nothing"},
    "loss": {"loss_is_per_sample", "loss_is_finite"},
    "attack": {"returns_the_view_with_a_new_x", "cost_counts_the_target", "ascends_a_linear_model"},
    "task": {"epochs_cover_every_sample_once", "feeds_skip_and_share_out", "default_model_fits"},
    "model": {"model_gives_logits", "model_can_train", "weights_round_trip"},
    "vicinity": {"project_gives_legal_points", "contains_refuses_illegal_points", "random_points_are_legal"},
    "schedule": {"schedule_is_a_factor"},
}


@pytest.fixture(params=SCAFFOLDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    result = run_cli("new-plugin", "try-this", *([] if kind == "method" else ["--kind", kind]))
    assert result.exit_code == 0, result.output
    assert "robustplug train --recipe try-this" in result.output
    folder = tmp_path / "robustplug-try-this"
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustplug_try_this"]:
        del sys.modules[name]


def test_a_new_plugin_is_complete(kind: str, written: Path) -> None:
    files = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert files == FILES | {f"robustplug_try_this/{kind}.py"}
    for name in files:
        text = (written / name).read_text()
        assert not [word for word in ("my-", "my_", "MyP", "TODO") if word in text.replace("my-digits", "")]
        if name.endswith(".py"):
            ast.parse(text)
    project = tomllib.loads((written / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["robustplug"] == {"try-this": "robustplug_try_this"}
    assert project["description"] == f"The {kind} try-this for robustplug"


def test_a_new_plugin_loads_and_conforms(kind: str, written: Path) -> None:
    point = metadata.EntryPoint("try-this", "robustplug_try_this", "robustplug")
    installed = [(p, "robustplug", "0") for p in metadata.entry_points(group="robustplug")]
    loaded = PluginHost([*installed, (point, "robustplug-try-this", "0.1.0")])
    registry = loaded.registry()
    assert not registry.broken
    place = cast(Kind, SCAFFOLDS[kind])
    component = registry.get(place, "try-this")
    recipe = read_recipe(written / "robustplug_try_this/recipes/try-this.toml", registry=registry)
    assert recipe.name == "try-this"
    assert "try-this" in {owner for (of, _), owner in registry.owners.items() if of == place}
    with offered(place, component):
        checks = [
            check
            for check in all_checks("try-this", place)
            if check.name in QUICK[kind] | {"options_round_trip"}
        ]
        assert len(checks) == len(QUICK[kind]) + 1
        for check in checks:
            check()


@pytest.mark.parametrize("kind", ["loss"], indirect=True)
def test_the_files_of_a_plugin_are_found_by_name(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = written / "robustplug_try_this"
    install(written, "try-this")
    (package / "recipes" / "cat.toml").write_text("# Of the same name.\n")
    (package / "recipes" / "suites").mkdir()
    (package / "recipes" / "suites" / "try.toml").write_text("# Its suite.\n[[row]]\n")
    (package / "recipes" / "studies").mkdir()
    (package / "recipes" / "studies" / "try.toml").write_text('# Its study.\nbase = "try-this"\n')
    assert find_recipe("try-this") == package / "recipes" / "try-this.toml"
    assert find_recipe("cat.toml") == bundled_recipes()["cat"]
    assert find_recipe("try-this:cat") == package / "recipes" / "cat.toml"
    assert find_suite("try") == package / "recipes" / "suites" / "try.toml"
    assert find_study("try") == package / "recipes" / "studies" / "try.toml"
    with pytest.raises(RecipeError, match='did you mean "try-this"'):
        find_recipe("try-thiss")
    listed = run_cli("recipes", "list").output.splitlines()
    assert [line.split()[0] for line in listed] == [*bundled_recipes(), "try-this:cat", "try-this"]
    assert listed[-2].split(maxsplit=1)[1] == "Of the same name. (plugin try-this)"
    assert "Its suite. (plugin try-this)" in run_cli("recipes", "list", "--suites").output
    assert "Its study. (plugin try-this)" in run_cli("recipes", "list", "--studies").output
    assert run_cli("recipes", "copy", "try-this", "mine.toml").exit_code == 0
    assert Path("mine.toml").read_text() == (package / "recipes" / "try-this.toml").read_text()
    monkeypatch.setenv("ROBUSTPLUG_PLUGINS", "cat")
    assert "try-this" not in run_cli("recipes", "list").output
    assert "robustplug_try_this" not in sys.modules, "listing files imports no plugin"


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
def test_a_new_plugin_of_every_kind_trains_and_passes_its_tests(kind: str, written: Path) -> None:
    install(written, "try-this")
    path = os.pathsep.join([str(written), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=written, env=variables, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "passed" in run("robustplug", "check", "try-this")
    assert " passed" in run("pytest", "-q", "-p", "no:cacheprovider", "-k", "not conforms")
    run("robustplug", "train", "--recipe", "try-this")
    result = json.loads((written / "runs" / "try-this" / "result.json").read_text())
    clean, attacked = (row["accuracy"] for row in result["attacks"])
    assert clean > 0.5
    assert 0.2 < attacked <= clean
    run("ruff", "check", ".")
    run("mypy", "--strict", "robustplug_try_this")


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
    environment.run("robustplug", "train", "--recipe", "try-this", cwd=project)
    result = json.loads((project / "runs" / "try-this" / "result.json").read_text())
    clean, attacked = (row["accuracy"] for row in result["attacks"])
    assert clean > 0.5
    assert 0.2 < attacked <= clean
    subprocess.run([sys.executable, "-m", "ruff", "check", project], check=True)
    mypy = [sys.executable, "-m", "mypy", "--strict", "robustplug_try_this"]
    subprocess.run(mypy, cwd=project, check=True)
