"""docs/write-a-plugin.md as a newcomer would follow it: every file is written, every command run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from robustplug.plugin.host import PluginHost, registry
from robustplug.plugin.scaffold import write_plugin
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.study import read_study
from robustplug.testing.kit import all_checks
from tests.docs.blocks import Block, code_blocks
from tests.training.runs import offered

from .conftest import ROOT, Environment, install

PAGE = ROOT / "docs" / "write-a-plugin.md"
BLOCKS = list(code_blocks(PAGE))


def written(block: Block) -> str:
    """Return the path that the first line of a block of a file says."""
    match = re.match(r"# (\S+\.(?:py|toml))\n", block.text)
    assert match is not None, f"{block}: the first line says which file it is"
    return match[1]


@pytest.fixture
def focus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the plugin and the files of the page, and make it importable."""
    write_plugin("focus", tmp_path)
    registry()  # of this process, which must not load what follows
    install(tmp_path, "focus")
    for block in BLOCKS:
        if block.language != "bash":
            path = tmp_path / written(block)
            assert path.exists() or path.name == "study.toml", f"{block} is none of the plugin's files"
            path.write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustplug_focus"]:
        del sys.modules[name]


def test_the_files_of_the_page_make_a_method(focus: Path) -> None:
    """The quick part of the walk below."""
    point = metadata.EntryPoint("focus", "robustplug_focus", "robustplug")
    found = PluginHost([(point, "robustplug-focus", "0.1.0")]).registry()
    assert not found.broken
    component = found.get("method", "focus")
    quick = {
        "views_stay_in_the_vicinity",
        "model_is_restored_after_views",
        "options_round_trip",
        "gradients_reach_the_declared_groups",
    }
    with offered("method", component):
        checks = [check for check in all_checks("focus", "method") if check.name in quick]
        assert len(checks) == len(quick)
        for check in checks:
            check()
        assert [cell.name for cell in read_study(focus / "study.toml").cells] == ["alpha=0.2", "alpha=0.5"]
    with pytest.raises(RecipeError, match="focus"):
        read_study(focus / "study.toml")


@pytest.mark.slow
def test_every_command_of_the_page_works(environment: Environment) -> None:
    script = ["set -euxo pipefail"]
    for block in BLOCKS:
        if block.language == "bash":
            script.append(block.text)
        else:
            script.append(f"printf %s {shlex.quote(block.text)} > {shlex.quote(written(block))}")
    output = environment.call(["bash", "-c", "\n".join(script)])
    project = environment.folder / "robustplug-focus"
    epochs = (project / "runs" / "focus" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(epochs[-1])["train"]["doubt"] < 1
    assert "failed" not in output
    page = (project / "compared.html").read_text()
    assert all(name in page for name in ("start", "focus-0.2"))
    assert (project / "studies" / "study" / "report" / "index.html").is_file()
    names = {
        command.split()[1]
        for block in BLOCKS
        if block.language == "bash"
        for command in block.text.splitlines()
        if command.startswith("robustplug")
    }
    assert {"new-plugin", "plugins", "show", "train", "check", "compare", "study"} == names
