"""A third party's plugin: what it offers, and that it installs, trains and passes its own tests."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from robustplug.cli.show import method_card
from robustplug.plugin.component import slots
from robustplug.plugin.host import PluginHost, host, registry
from robustplug.plugin.registry import Registry
from robustplug.recipe.load import read_recipe

from .conftest import ROOT, Environment

EXAMPLE = Path(__file__).parent / "robustplug_example"


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Load the installed plugins and the example from its folder, for one test."""
    monkeypatch.syspath_prepend(EXAMPLE)
    installed = [(point, "robustplug", "0") for point in metadata.entry_points(group="robustplug")]
    example = metadata.EntryPoint("alp", "robustplug_alp", "robustplug")
    loaded = PluginHost([*installed, (example, "robustplug-alp", "0.3.0")])
    assert {r.name: r.problem for r in loaded.reports if r.status != "loaded"} == {}
    yield loaded.registry()
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustplug_alp"]:
        del sys.modules[name]


def test_the_example_registers_its_components(offered: Registry) -> None:
    assert {kind for (kind, _), owner in offered.owners.items() if owner == "alp"} == {"method", "loss"}
    method = offered.get("method", "alp")
    assert "1803.06373" in method.paper
    assert slots(method.options)["perturbation"].kind == "perturbation"
    assert method.load().__name__ == "Alp"
    assert not offered.broken
    assert not offered.duplicates


def test_the_recipe_of_the_example_is_valid(offered: Registry) -> None:
    recipe = read_recipe(EXAMPLE / "robustplug_alp" / "recipes" / "alp.toml", registry=offered)
    assert recipe.method.name == "alp"
    assert recipe.method.options.pairing == 0.5
    assert recipe.method.options.loss.name == "alp"


def test_the_example_is_unknown_where_it_is_not_installed() -> None:
    assert "alp" not in {report.name for report in host().reports}
    assert "alp" not in registry().names("method")
    assert method_card("alp") is None


Run = Callable[..., str]


@pytest.fixture(scope="module")
def installed(environment: Environment) -> Run:
    """Install the example; gives a way to run things in its folder."""
    ignored = shutil.ignore_patterns("__pycache__")
    project = shutil.copytree(EXAMPLE, environment.folder / "project", ignore=ignored)
    environment.run("python", "-m", "pip", "install", project)
    return functools.partial(environment.run, cwd=project)


def _is_cache(path: Path) -> bool:
    """Say whether Python or ruff wrote a path of a source tree."""
    return not {"__pycache__", ".ruff_cache"}.isdisjoint(path.parts)


@pytest.mark.slow
def test_the_wheel_of_robustplug_holds_plugins_recipes_and_cards(installed: Run) -> None:
    place = installed("python", "-c", "import robustplug; print(robustplug.__file__)").strip()
    packages = Path(place).parents[1]
    assert packages.is_relative_to(installed("python", "-c", "import sys; print(sys.prefix)").strip())
    for folder in sorted((ROOT / "plugins").glob("robustplug_*")):
        built = {path.name for path in (packages / folder.name).iterdir()}
        assert {path.name for path in folder.iterdir() if path.name != "__pycache__"} <= built
    templates = Path("robustplug", "plugin", "templates")
    for packed_in, ours_in in ((Path("robustplug", "recipes"), Path("recipes")), (templates, templates)):
        packed, ours = (
            {p.relative_to(top) for p in top.rglob("*") if not _is_cache(p.relative_to(top))}
            for top in (packages / packed_in, ROOT / ours_in)
        )
        assert ours
        assert packed == ours


@pytest.mark.slow
def test_the_installed_example_is_listed(installed: Run) -> None:
    rows = {line.split()[0]: line.split() for line in installed("robustplug", "plugins").splitlines()}
    assert rows["alp"] == ["alp", "robustplug-alp", "0.3.0", "2", "loaded"]
    assert {row[-1] for name, row in rows.items() if name != "plugin"} == {"loaded"}
    shown = installed("robustplug", "show", "alp")
    assert "alp · method of the plugin alp" in shown
    assert "ALP: adversarial logit pairing" in shown


@pytest.mark.slow
def test_the_installed_example_trains(installed: Run) -> None:
    output = installed("robustplug", "train", "--recipe", "alp", "--out", "trained")
    folder = Path(installed("python", "-c", "import os; print(os.getcwd())").strip()) / "trained"
    result = json.loads((folder / "result.json").read_text())
    clean, attacked = [row["accuracy"] for row in result["attacks"]]
    assert f"{clean:.1%}" in output
    assert 0.3 < clean <= 1.0, "two epochs teach it something"
    assert 0 < attacked <= clean
    assert json.loads((folder / "environment.json").read_text())["plugins"]["alp"] == "robustplug-alp 0.3.0"
    first, last = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert last["train"]["loss/clean"] < first["train"]["loss/clean"]
    assert {"loss/clean", "loss/adv", "loss/pair"} <= set(last["train"])


@pytest.mark.slow
def test_the_installed_example_passes_the_conformance_kit(installed: Run) -> None:
    output = installed("robustplug", "check", "alp")
    assert "alp · method" in output
    assert "alp · loss" in output
    assert "passed" in output


@pytest.mark.slow
def test_the_tests_of_the_example_pass(installed: Run) -> None:
    output = installed("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in output
    assert "failed" not in output
