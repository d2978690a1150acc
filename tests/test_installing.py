"""Every extra of pyproject.toml resolves with plain pip, and within a time that a user waits."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import robustplug
from robustplug.plugin.host import host

ROOT = Path(robustplug.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Seconds; what pip downloads depends on the network and on what its index states about packages.
LIMIT = 180


def named(requirements: list[str]) -> set[str]:
    """Return the names of the packages, and of the extras of robustplug, that requirements name."""
    found = set[str]()
    for requirement in requirements:
        name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", requirement).groups()  # type: ignore[union-attr]
        found |= {f"[{extra}]" for extra in extras.split(",")} if name == "robustplug" else {name}
    return found


def reached(extra: str) -> set[str]:
    """Return the names of all packages that an extra asks for, through other extras, too."""
    names = named(EXTRAS[extra])
    return {name for name in names if name[0] != "["} | {
        name for each in names if each[0] == "[" for name in reached(each[1:-1])
    }


def test_all_holds_every_extra_but_those_for_developers_and_those_that_pin() -> None:
    apart = {"all", "benchmark", "docs", "robustbench", "test", "torchattacks"}
    assert named(EXTRAS["all"]) == {f"[{extra}]" for extra in set(EXTRAS) - apart}
    assert not {"torchattacks", "robustbench"} & (reached("all") | reached("test"))


def test_attacks_of_art_need_no_extra() -> None:
    assert {"adversarial-robustness-toolbox", "multiprocess", "packaging"} <= named(PROJECT["dependencies"])


def test_every_extra_that_a_message_names_exists() -> None:
    files = [
        path
        for top in ("robustplug", "plugins", "docs")
        for path in (ROOT / top).rglob("*")
        if path.is_file()
    ]
    texts = [
        path.read_text(encoding="utf-8")
        for path in [ROOT / "README.md", *files]
        if path.suffix in (".py", ".md")
    ]
    asked = {
        extra
        for text in texts
        for part in re.findall(r"robustplug\[([\w,-]+)\]", text)
        for extra in part.split(",")
    }
    assert {"onnx", "wandb"} <= asked
    assert asked <= set(EXTRAS)


def test_without_torchattacks_the_error_says_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from robustplug.recipe.errors import RecipeError

    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(RecipeError, match="pip install --no-deps torchattacks"):
        robustplug.build("perturbation", "torchattacks", name="PGD")


def test_every_plugin_of_the_project_is_packaged_and_loads() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    modules = {path.parent.name for path in (ROOT / "plugins").glob("robustplug_*/__init__.py")}
    points = set(PROJECT["entry-points"]["robustplug"].values()) - {"robustplug.builtin"}
    assert modules == points
    for module in modules:
        # The wheel, the contracts of import-linter.
        assert f'"plugins/{module}"' in text
        assert text.count(f'"{module}"') >= 4
    loaded = {report.module for report in host().reports if report.status == "loaded"}
    assert modules <= loaded


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_resolves(extra: str, tmp_path: Path) -> None:
    """Nothing is installed. What is installed here counts as a candidate, except for "all"."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    report = tmp_path / "report.json"
    anew = ["--ignore-installed"] if extra == "all" else []
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *anew, "--report", str(report)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, f"{ROOT}[{extra}]"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=tmp_path,
    )
    print(f"{extra}: {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    names = {item["metadata"]["name"].lower() for item in found}
    assert "robustplug" in names
    if anew:
        assert len(names) > 100
        assert "torchattacks" not in names
