"""components, show and plugins."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustplug.plugin.component import KINDS
from robustplug.plugin.host import host, registry
from robustplug.plugin.names import ALLOW_LIST

from .conftest import Install, Invoke

LOSS = """
from __future__ import annotations
from dataclasses import dataclass
from robustplug.api import Component, hookimpl
@dataclass(frozen=True)
class Shared:
    '''Options of several.

    Attributes:
        depth: said where it is inherited from.
        sizes: said better below.
    '''
    depth: int = 2
@dataclass(frozen=True, kw_only=True)
class Options(Shared):
    '''Options of it.

    Attributes:
        sizes, shape: numbers in [low, high]; a meaning of
            two lines.
        must: no default.
    '''
    must: dict[str, int]
    sizes: tuple[int, ...] = (1, 2)
    shape: list[float] | None = None
@hookimpl
def robustplug_losses():
    yield Component("my-loss", "nowhere:Thing", Options, "a loss on [a, b]", "Someone 2020, [arxiv]")
"""


def test_components_lists_all(cli: Invoke) -> None:
    result = cli("components")
    assert result.exit_code == 0
    kind, rows = "", set()
    for line in result.output.splitlines():
        words = line.split()
        kind = words[0] if len(words) == 1 and words[0] in KINDS else kind
        rows.add((kind, *words[:2]))
    for (kind, name), owner in registry().owners.items():
        assert (kind, name, owner) in rows


@pytest.mark.parametrize("kind", KINDS)
def test_components_of_one_kind(cli: Invoke, kind: str) -> None:
    result = cli("components", "--kind", kind)
    assert result.exit_code == 0
    header, _, first, *rows = result.output.splitlines()
    assert header.split() == ["name", "plugin", "summary"]
    assert first.strip() == kind
    names = {row.split()[0] for row in rows if not row.startswith(" ")}
    assert names == {name for each, name in registry().owners if each == kind}


def test_components_of_an_unknown_kind_is_a_usage_error(cli: Invoke) -> None:
    result = cli("components", "--kind", "attack")
    assert result.exit_code == 2
    assert "perturbation" in result.output


def test_components_fit_a_narrow_terminal(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = cli("components")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 60


def test_show_tells_options_defaults_meanings_and_paper(cli: Invoke) -> None:
    result = cli("show", "pgd")
    assert result.exit_code == 0
    assert "arXiv:1706.06083" in result.output
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    assert rows["steps"][:3] == ["steps", "Count", "10"]
    assert '"last", "best"' in result.output
    assert "gradient steps" in result.output


def test_show_tells_every_component_of_a_name(cli: Invoke) -> None:
    output = cli("show", "trades", "--no-card").output
    assert all(f"trades · {kind} of the plugin trades" in output for kind in ("method", "label map", "loss"))
    assert "pgd (steps = 10, step_size = 0.007" in output
    assert "chooses the point of V" in output
    one = cli("show", "trades", "--kind", "loss", "--no-card").output
    assert "trades · loss" in one
    assert "trades · method" not in one


def test_show_tells_everything_as_it_was_written(cli: Invoke, install: Install) -> None:
    install("mine", LOSS)
    output = cli("show", "my-loss").output
    for text in (
        "a loss on [a, b]",
        "Someone 2020, [arxiv]",
        "dict[str, int]",
        "tuple[int, ...]",
        "list[float] | None",
        "numbers in [low, high]; a meaning of two lines.",
        "(1, 2)",
        "required",
        "said where it is inherited from.",
    ):
        assert text in output
    assert "a loss on [a, b]" in cli("components", "--kind", "loss").output


def test_show_of_an_unknown_name_gives_the_closest(cli: Invoke) -> None:
    result = cli("show", "tradess")
    assert result.exit_code == 2
    assert 'Did you mean "trades"?' in result.output
    assert "Did you mean" not in cli("show", "xyzzyx").output
    assert cli("show", "trades", "--kind", "task").exit_code == 2


def test_show_prints_the_method_card(cli: Invoke, install: Install, tmp_path: Path) -> None:
    package = install("mine", LOSS)
    assert "Card of mine" not in cli("show", "my-loss").output
    (tmp_path / "site-packages" / package / "README.md").write_text("# Card of mine\n\nClaim: *none*.\n")
    assert "Card of mine" in cli("show", "my-loss").output
    assert "Claim: none." in cli("show", "my-loss").output
    assert "Card of mine" not in cli("show", "my-loss", "--no-card").output


def test_a_name_of_two_owners_is_one_message(cli: Invoke, install: Install) -> None:
    install("mine", LOSS)
    install("yours", LOSS)
    for command in ("show", "check"):
        result = cli(command, "my-loss")
        assert result.exit_code == 2, command
        assert "mine" in result.output
        assert "yours" in result.output
    assert cli("show", "ce").exit_code == 0


def test_plugins_lists_what_is_installed(cli: Invoke) -> None:
    result = cli("plugins")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.output.splitlines()}
    for report in host().reports:
        count = sum(owner == report.name for owner in registry().owners.values())
        assert rows[report.name].split() == [
            report.name, report.distribution, report.version, str(count), "loaded",
        ]  # fmt: skip


BROKEN = {
    "import": ("raise RuntimeError('[boom]')", "RuntimeError: [boom]"),
    "exit": ("raise SystemExit('[boom]')", "SystemExit: [boom]"),
    "hook": (
        "from robustplug.api import hookimpl\n@hookimpl\ndef robustplug_tasks(): raise OSError('[boom]')\n",
        "robustplug_tasks: OSError: [boom]",
    ),
}


@pytest.mark.parametrize(("source", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_a_red_row(
    cli: Invoke, install: Install, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    package = install("bad", source)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = cli("plugins")
    assert result.exit_code == 0
    (row,) = [line for line in result.output.splitlines() if package in line]
    assert f"failed: {why}" in row
    assert "\x1b[31m" in row
    assert "\x1b[31m" not in result.output.replace(row, "")
    # The table says it all: no warning beside it.
    assert result.output.count("boom") == 1


def test_a_broken_plugin_costs_other_commands_one_yellow_line(cli: Invoke, install: Install) -> None:
    install("bad", "raise RuntimeError('boom')")
    result = cli("components")
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if "boom" in line]
    assert 'plugin "bad"' in line
    assert "trades" in result.output
    assert "boom" not in cli("components").output


def test_a_recipe_that_needs_a_broken_plugin_is_told_so(
    cli: Invoke, install: Install, tmp_path: Path
) -> None:
    install("bad", "raise RuntimeError('boom')")
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[task]\nuse = "digits"\n[method]\nuse = "my-method"\n')
    result = cli("validate", recipe)
    assert result.exit_code == 2
    assert "mine.toml:4: method.use" in result.output
    assert "bad: RuntimeError: boom" in result.output
    assert cli("validate", "cat").exit_code == 0


def test_plugins_tells_what_the_allow_list_keeps_out(
    cli: Invoke, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_LIST, "trades")
    install("bad", "raise RuntimeError('boom')")
    result = cli("plugins")
    rows = {line.split()[0]: line for line in result.output.splitlines()}
    assert rows["cat"].rstrip().endswith("not allowed")
    assert rows["bad"].rstrip().endswith("not allowed")
    assert rows["trades"].rstrip().endswith("loaded")
    assert rows["builtin"].rstrip().endswith("loaded")
    assert cli("validate", "cat").exit_code == 2
