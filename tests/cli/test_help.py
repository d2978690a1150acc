from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import robustplug
from robustplug.cli import main

from .conftest import Install, Invoke

COMMANDS = [
    "check",
    "compare",
    "components",
    "describe",
    "evaluate",
    "plugins",
    "recipes",
    "report",
    "show",
    "study",
    "train",
    "tune",
    "validate",
]
HEAVY = {"torch", "torchvision", "numpy", "pydantic", "rich", "accelerate", "sklearn", "matplotlib"}
HELP = [sys.executable, "-m", "robustplug", "--help"]


def environment(cache: Path) -> dict[str, str]:
    """Return an environment in which bytecode is kept, as it is where a package is installed."""
    root = Path(robustplug.__file__).parents[1]
    path = os.pathsep.join([str(root), str(root / "plugins"), os.environ.get("PYTHONPATH", "")])
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(cache)}


def test_help_lists_the_commands(cli: Invoke) -> None:
    result = cli("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^  ([a-z-]+) {2,}\S", result.output.partition("Commands:")[2], re.M)
    assert set(COMMANDS) <= set(listed)
    assert listed == sorted(listed)
    for name in ("", *listed):
        # A first sentence that is too long for its line is cut.
        assert not re.search(r"^  .*\.\.\.$", cli(*name.split(), "--help").output, re.M), name
    assert cli("-h").output == result.output


@pytest.mark.parametrize("command", [*COMMANDS, "recipes list", "recipes copy"])
def test_every_command_explains_itself(cli: Invoke, command: str) -> None:
    result = cli(*command.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert len(result.output.splitlines()) > 4


def test_the_version_is_that_of_the_package(cli: Invoke) -> None:
    assert cli("--version").output.split()[-1] == robustplug.__version__


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", *HELP[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"click", "robustplug"} <= imported
    assert imported & HEAVY == set()


def seconds(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, env=env, timeout=60, check=True)
    return time.perf_counter() - started


@pytest.mark.slow  # a wall time: true on a quiet machine only
def test_help_answers_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path)
    assert min(seconds(HELP, env) for _ in range(7)) < 0.2


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("component", "components")])
def test_an_unknown_command_is_answered_with_the_closest(cli: Invoke, typed: str, meant: str) -> None:
    result = cli(typed)
    assert result.exit_code == 2
    assert "No such command" in result.output
    assert result.output.count("Did you mean") == 1
    assert f'"{meant}"' in result.output or f"'{meant}'" in result.output


OURS = """
import click
from robustplug.api import hookimpl
@hookimpl
def robustplug_commands(cli):
    @cli.command("greet")
    @click.argument("name")
    def greet(name):
        "Say hello."
        if name == "ctrl-c":
            raise KeyboardInterrupt
        click.echo(f"hello {name}")
"""


def test_a_plugins_command_is_listed_and_runs(cli: Invoke, install: Install) -> None:
    install("greeter", OURS)
    assert re.search(r"^  greet +Say hello\.", cli("--help").output, re.M)
    assert cli("greet", "you").output == "hello you\n"


def test_a_plugins_command_runs_without_help_before_it(cli: Invoke, install: Install) -> None:
    install("greeter", OURS)
    result = cli("greet", "you")
    assert (result.exit_code, result.output) == (0, "hello you\n")


DECLARED = "[robustplug.commands]\ngreet = {}:greet\n"


def test_the_summary_of_every_command_is_that_of_its_own_help(cli: Invoke) -> None:
    listed = dict(
        re.findall(r"^  ([a-z-]+) {2,}(\S.*)", cli("--help").output.partition("Commands:")[2], re.M)
    )
    context = click.Context(main)
    for name, text in listed.items():
        command = main.get_command(context, name)
        assert command is not None
        assert text.rstrip(".") == command.get_short_help_str(200).rstrip("."), name


def test_a_declared_command_is_listed_without_an_import(cli: Invoke, install: Install) -> None:
    source = "import click\n@click.command()\ndef greet():\n    'Say hello.'\n    click.echo('hello')\n"
    package = install("greeter", source, DECLARED)
    assert re.search(r"^  greet +Say hello\.", cli("--help").output, re.M)
    assert package not in sys.modules
    assert cli("greet").output == "hello\n"


def test_a_declared_command_that_fails_is_one_sentence(cli: Invoke, install: Install) -> None:
    package = install("greeter", "raise RuntimeError('boom')", DECLARED)
    assert re.search(r"^  greet *$", cli("--help").output, re.M)
    result = cli("greet")
    assert result.exit_code == 2
    assert f'the command "greet" of {package} fails: RuntimeError: boom' in result.output


def test_a_plugin_that_may_not_load_has_no_commands(
    cli: Invoke, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("greeter", "", DECLARED)
    monkeypatch.setenv("ROBUSTPLUG_PLUGINS", "cat")
    listed = cli("--help").output
    assert "greet" not in listed
    assert "  iaat" not in listed
    assert cli("greet").exit_code == 2


def test_an_interrupt_has_its_exit_code_and_no_traceback(cli: Invoke, install: Install) -> None:
    install("greeter", OURS)
    result = cli("greet", "ctrl-c")
    assert result.exit_code == 130
    assert "interrupted" in result.output


def test_broken_plugins_do_not_break_help(cli: Invoke, install: Install) -> None:
    install("a-broken-import", "raise RuntimeError('boom')")
    install(
        "a-broken-hook",
        "from robustplug.api import hookimpl\n@hookimpl\ndef robustplug_commands(cli): raise SystemExit(5)",
    )
    install("greeter", OURS)
    result = cli("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.output for name in [*COMMANDS, "greet"])
