from __future__ import annotations

from pathlib import Path

from .conftest import Install, Invoke

PLUGIN = """
from robustplug.api import Component, hookimpl
@hookimpl
def robustplug_losses():
    yield Component("reduced", "{package}.parts:Reduced", summary="a loss that is reduced")
@hookimpl
def robustplug_output_maps():
    yield Component("margin", "robustplug.builtin.maps:Identity", summary="a second component of this name")
"""
PARTS = """
import torch.nn.functional as F
class Reduced:
    def __init__(self, options): pass
    def __call__(self, step, view, output, target):
        return F.cross_entropy(output, view.y)
"""


def test_a_component_that_conforms(cli: Invoke) -> None:
    result = cli("check", "one-hot")
    assert result.exit_code == 0, result.output
    head, *rows = result.output.splitlines()
    assert head == "one-hot · label map"
    assert {row.split()[0] for row in rows if row.startswith("  ") and row[2] != " "} <= {"passed", "skipped"}
    assert "passed" in result.output


def test_a_component_that_does_not(cli: Invoke, install: Install, tmp_path: Path) -> None:
    package = install("mine", "")
    folder = tmp_path / "site-packages" / package
    (folder / "__init__.py").write_text(PLUGIN.format(package=package))
    (folder / "parts.py").write_text(PARTS)
    result = cli("check", "reduced")
    assert result.exit_code == 1
    assert "failed" in result.output
    assert "passed" in result.output


def test_all_components_of_a_name_are_checked(cli: Invoke, install: Install) -> None:
    install("mine", PLUGIN.format(package="nowhere"))
    assert "margin · output map" in cli("check", "margin").output
    one = cli("check", "margin", "--kind", "output_map").output
    assert "margin · output map" in one
    assert "margin · loss" not in one


def test_an_unknown_name_has_exit_code_2(cli: Invoke) -> None:
    result = cli("check", "tradess")
    assert result.exit_code == 2
    assert 'Did you mean "trades"?' in result.output


def test_a_name_of_another_kind_is_not_a_pass(cli: Invoke) -> None:
    result = cli("check", "trades", "--kind", "task")
    assert result.exit_code == 2
    assert 'o task is named "trades"' in result.output


def test_names_of_all_kinds_are_suggested(cli: Invoke) -> None:
    result = cli("check", "pgdd")
    assert result.exit_code == 2
    assert 'Did you mean "pgd"?' in result.output
