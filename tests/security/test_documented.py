"""docs/security.md: each "cannot" names a test that exists; and the two that belong to no kind of file."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from .hostile import refused, run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_cannot_names_a_test_that_exists() -> None:
    here = Path(__file__).parent.glob("test_*.py")
    known = {name for file in here for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.M)}
    rows = re.findall(r"^\| (?!it cannot|they cannot|-)(.*) \| (.*) \|$", TEXT, re.M)
    assert len(rows) > 15
    for what, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, what
        assert set(named) <= known, what


def test_the_pages_lead_to_each_other() -> None:
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "- security.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["os", "os:system", "builtins:eval", "torch.nn:Module", "../cat", "robustplug.cli:main"]
)
@pytest.mark.parametrize("key", ["task.use", "method.use", "model.use", "method.perturbation.use"])
def test_a_recipe_names_components_only(key: str, name: str) -> None:
    assert "is named" in refused("validate", "cat", "--set", f'{key}="{name}"')


def test_nothing_is_reached_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object) -> None:
        raise AssertionError("a command uses the network")

    monkeypatch.setattr(socket.socket, "connect", reached)
    monkeypatch.setattr(socket, "getaddrinfo", reached)
    monkeypatch.chdir(tmp_path)
    changes = ("train.epochs=1", "evaluate.samples=8", "task.validation=20", "model.width=2")
    options = [part for change in changes for part in ("--set", change)]
    result = run("train", "--recipe", "erm", "--out", "run", *options)
    assert result.exit_code == 0, result.output
