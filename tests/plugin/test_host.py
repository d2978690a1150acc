from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint

import click
import pytest

from robustplug.core.types import EpochReport, Result, RunInfo
from robustplug.plugin import host as plugins
from robustplug.plugin.host import REGISTRATION_HOOKS, PluginHost, host
from robustplug.plugin.names import ALLOW_LIST
from robustplug.plugin.registry import DuplicateComponent

from .fakes import HEAD, Plugin, losses, statuses

RUN = RunInfo("toy", "runs/toy", "erm", "digits", "small-cnn", 2)
REPORT = EpochReport(0, {"loss": 1.0}, {}, 0.1, 1.0, True)
RESULT = Result("test", 1, {"use": "linf"}, ())

AT_LOAD = {
    "raises at import": ("raise RuntimeError('boom\\n  twice')", "RuntimeError: boom twice"),
    "exits at import": ("raise SystemExit('licence?')", "SystemExit: licence?"),
    "another exception": ("class Mine(BaseException): pass\nraise Mine('boom')", "Mine: boom"),
    "an interrupt of its own": ("class Stop(KeyboardInterrupt): pass\nraise Stop('boom')", "Stop: boom"),
    "the end of a generator": ("raise GeneratorExit('boom')", "GeneratorExit: boom"),
    "syntax": ("def (", "SyntaxError"),
    "missing library": ("import no_such_library_at_all", "no_such_library_at_all"),
    "unknown hook": (HEAD + "@hookimpl\ndef robustplug_loses(): return ()", "robustplug_loses"),
    "unknown argument": (HEAD + "@hookimpl\ndef robustplug_run_start(walk): pass", "walk"),
}
AT_HOOK = {
    "raises": ("    raise KeyError('boom')\n", "KeyError"),
    "exits": ("    raise SystemExit(3)\n", "SystemExit"),
    "another exception": ("    class Mine(BaseException): pass\n    raise Mine('boom')\n", "Mine: boom"),
    "no component": ("    yield 'mine'\n", "must yield Component, not str"),
    "none": ("    return None\n", "TypeError"),
    "bad name": ("    yield Component('Not Kebab', 'a:b')\n", "kebab-case"),
}


@pytest.mark.parametrize(("source", "why"), AT_LOAD.values(), ids=AT_LOAD)
def test_a_plugin_that_does_not_load_is_reported_and_all_else_works(
    plugin: Plugin, source: str, why: str
) -> None:
    loaded = PluginHost([plugin("bad", source), plugin("good", losses("mine"))])
    assert statuses(loaded) == {"bad": "failed", "good": "loaded"}
    (report,) = (r for r in loaded.reports if r.name == "bad")
    assert why in report.problem
    assert "\n" not in report.problem
    (warning,) = loaded.warnings
    assert all(part in warning for part in ('"bad"', "dist-bad 1.0", why))
    registry = loaded.registry()
    assert registry.names("loss") == ["mine"]
    assert why in registry.broken["bad"]
    loaded.run_start(RUN)
    loaded.commands(click.Group())


@pytest.mark.parametrize(("body", "why"), AT_HOOK.values(), ids=AT_HOOK)
def test_a_hook_that_fails_is_reported_and_all_else_works(plugin: Plugin, body: str, why: str) -> None:
    bad = losses("early") + body.replace("return None", "return None if True else ()")
    if "return" in body:
        bad = f"{HEAD}@hookimpl\ndef robustplug_losses():\n{body}"
    tasks = "@hookimpl\ndef robustplug_tasks():\n    yield Component('chess', 'a:b')\n"
    loaded = PluginHost([plugin("bad", bad + tasks), plugin("good", losses("mine"))])
    registry = loaded.registry()
    assert why in registry.broken["bad"]
    assert "robustplug_losses" in registry.broken["bad"]
    (warning,) = loaded.warnings
    assert '"bad"' in warning
    assert "mine" in registry.names("loss")
    assert registry.names("task") == ["chess"]


def test_ctrl_c_while_plugins_load_stops_the_program(plugin: Plugin) -> None:
    with pytest.raises(KeyboardInterrupt):
        PluginHost([plugin("slow", "raise KeyboardInterrupt")])


def test_a_command_hook_that_fails_is_reported_and_others_go_on(plugin: Plugin) -> None:
    bad = HEAD + "@hookimpl\ndef robustplug_commands(cli): raise RuntimeError('boom')"
    good = HEAD + "@hookimpl\ndef robustplug_commands(cli): cli.command('ours')(lambda: None)"
    loaded = PluginHost([plugin("bad", bad), plugin("good", good)])
    group = click.Group()
    loaded.commands(group)
    assert list(group.commands) == ["ours"]
    (warning,) = loaded.warnings
    assert "robustplug_commands" in warning
    assert '"bad"' in warning


def test_two_owners_of_a_name_are_both_named_and_only_that_name_is_an_error(plugin: Plugin) -> None:
    loaded = PluginHost([plugin("one", losses("shared", "first")), plugin("two", losses("shared", "second"))])
    registry = loaded.registry()
    with pytest.raises(DuplicateComponent, match="one and by two"):
        registry.get("loss", "shared")
    assert {registry.get("loss", name).name for name in ("first", "second")} == {"first", "second"}
    assert registry.owners["loss", "second"] == "two"
    assert [w for w in loaded.warnings if "shared" in w and "one" in w and "two" in w]


def test_the_same_name_of_another_kind_is_no_duplicate(plugin: Plugin) -> None:
    method = "@hookimpl\ndef robustplug_methods():\n    yield Component('mine', 'a:b')\n"
    registry = PluginHost([plugin("one", losses("mine") + method)]).registry()
    assert not registry.duplicates
    assert registry.get("method", "mine") is not registry.get("loss", "mine")


def test_an_entry_point_of_a_taken_name_does_not_evict_the_first(plugin: Plugin) -> None:
    first, second = plugin("twin", losses("first")), plugin("twin", losses("second"))
    loaded = PluginHost([first, (second[0], "other-dist", "2.0")])
    assert [(r.distribution, r.status) for r in loaded.reports] == [
        ("dist-twin", "loaded"),
        ("other-dist", "failed"),
    ]
    assert loaded.registry().names("loss") == ["first"]


def test_the_order_of_installation_does_not_matter(plugin: Plugin) -> None:
    points = [
        plugin("zebra", losses("shared", "z")),
        plugin("ant", losses("shared", "a")),
        plugin("builtin", losses("base")),
    ]
    one, other = PluginHost(points), PluginHost(reversed(points))
    assert [r.name for r in one.reports] == [r.name for r in other.reports] == ["builtin", "ant", "zebra"]
    assert one.registry().owners == other.registry().owners


ALLOWED = [
    (None, {"builtin", "cat", "cat2"}),
    (frozenset(), {"builtin"}),
    (frozenset({"cat"}), {"builtin", "cat"}),
    (frozenset({"cat", "cat2"}), {"builtin", "cat", "cat2"}),
]


@pytest.mark.parametrize(("allowed", "expected"), ALLOWED)
def test_the_allow_list_is_exact(plugin: Plugin, allowed: frozenset[str] | None, expected: set[str]) -> None:
    points = [plugin(name, losses(name)) for name in ("builtin", "cat", "cat2")]
    loaded = PluginHost(points, allowed)
    assert {name for name, status in statuses(loaded).items() if status == "loaded"} == expected
    assert {r.status for r in loaded.reports} <= {"loaded", "not allowed"}
    assert set(loaded.registry().names("loss")) == expected
    assert not loaded.warnings
    assert not loaded.registry().broken


def test_a_plugin_that_is_not_allowed_is_not_imported(plugin: Plugin) -> None:
    loaded = PluginHost([plugin("bad", "raise SystemExit(1)")], frozenset({"other"}))
    assert statuses(loaded) == {"bad": "not allowed"}
    assert [w for w in loaded.warnings if ALLOW_LIST in w and '"other"' in w]
    assert not [w for w in loaded.warnings if "bad" in w]


def test_the_allow_list_comes_from_the_environment(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [plugin(name, losses(name))[0] for name in ("builtin", "cat", "cat2")]
    groups: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        groups.append(group)
        return points

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.setenv(ALLOW_LIST, " cat , ,nobody")
    loaded = host.__wrapped__()
    assert groups == ["robustplug"]
    assert statuses(loaded) == {"builtin": "loaded", "cat": "loaded", "cat2": "not allowed"}
    (warning,) = loaded.warnings
    assert "nobody" in warning
    monkeypatch.delenv(ALLOW_LIST)
    assert set(statuses(host.__wrapped__()).values()) == {"loaded"}


LISTENER = """
from robustplug.api import hookimpl
heard = []
@hookimpl
def robustplug_run_start(run): heard.append(("start", run))
@hookimpl
def robustplug_epoch_end(report): heard.append(("epoch", report))
@hookimpl
def robustplug_run_end(): heard.append(("end",))
"""


def heard(loaded: PluginHost, name: str) -> list[tuple[object, ...]]:
    result: list[tuple[object, ...]] = loaded.manager.get_plugin(name).heard  # type: ignore[union-attr]
    return result


def test_observers_get_what_they_ask_for_by_name(plugin: Plugin) -> None:
    swapped = HEAD + (
        "heard = []\n@hookimpl\ndef robustplug_epoch_end(report, run):\n    heard.append((report, run))\n"
    )
    loaded = PluginHost([plugin("listener", LISTENER), plugin("swapped", swapped)])
    loaded.run_start(RUN)
    loaded.epoch_end(RUN, REPORT)
    loaded.run_end(RUN, RESULT)
    assert heard(loaded, "listener") == [("start", RUN), ("epoch", REPORT), ("end",)]
    assert heard(loaded, "swapped") == [(REPORT, RUN)]
    assert not loaded.warnings


@pytest.mark.parametrize("error", ["RuntimeError('boom')", "SystemExit('boom')"])
def test_an_observer_that_raises_is_dropped_after_one_warning(plugin: Plugin, error: str) -> None:
    bad = LISTENER.replace('heard.append(("epoch", report))', f'heard.append("epoch"); raise {error}')
    loaded = PluginHost([plugin("a-bad-one", bad), plugin("listener", LISTENER)])
    loaded.run_start(RUN)
    loaded.epoch_end(RUN, REPORT)
    loaded.epoch_end(RUN, REPORT)
    loaded.run_end(RUN, RESULT)
    assert heard(loaded, "a-bad-one") == [("start", RUN), "epoch"]
    assert [event[0] for event in heard(loaded, "listener")] == ["start", "epoch", "epoch", "end"]
    (warning,) = loaded.warnings
    assert all(part in warning for part in ("a-bad-one", "robustplug_epoch_end", "boom"))


def test_an_interrupt_in_an_observer_is_not_swallowed(plugin: Plugin) -> None:
    bad = HEAD + "@hookimpl\ndef robustplug_run_start(): raise KeyboardInterrupt\n"
    with pytest.raises(KeyboardInterrupt):
        PluginHost([plugin("bad", bad)]).run_start(RUN)


def test_each_kind_has_a_hook_and_what_is_installed_loads() -> None:
    assert len(set(REGISTRATION_HOOKS.values())) == len(REGISTRATION_HOOKS)
    installed = plugins.host()
    assert {r.name: r.problem for r in installed.reports if r.status != "loaded"} == {}
    assert installed.registry().broken == {}
    assert installed.registry().duplicates == {}
