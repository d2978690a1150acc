"""An observer that changes the process is put right, named and dropped; it changes only copies."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustplug.core.guards import switches
from robustplug.core.types import AttackResult, EpochReport, Result, RunInfo
from robustplug.plugin.host import PluginHost

from ..core.guards import rude
from ..core.guards.rude import Change
from .fakes import HEAD, Plugin

pytestmark = pytest.mark.table

RUN = RunInfo("run", "runs/run", "erm", "digits", "small-cnn", 2)
CHANGES = [
    rude.no_gradients,
    rude.inference,
    rude.deterministic,
    rude.cudnn,
    rude.tf32,
    rude.threads,
    rude.double_by_default,
    rude.meta_by_default,
    rude.autocast,
    rude.anomaly,
    rude.denormals,
    rude.numpy_errors,
    rude.working_folder,
    rude.handlers,
    rude.hook_everywhere,
]


def report() -> EpochReport:
    return EpochReport(0, {"loss": 1.0}, {"clean": 0.5}, 0.1, 1.0, True)


def observer(body: str) -> str:
    head = f"{HEAD}calls = []\n@hookimpl\ndef robustplug_epoch_end(run, report):\n    calls.append(1)\n"
    return f"{head}    {body}\n"


def calls(host: PluginHost, name: str) -> int:
    plugin: Any = host.manager.get_plugin(name)
    return len(plugin.calls)


def generators() -> list[Any]:
    numbers = [each.tolist() if isinstance(each, np.ndarray) else each for each in np.random.get_state()]
    return [torch.get_rng_state().tolist(), random.getstate(), numbers]


@pytest.fixture(autouse=True)
def state() -> Iterator[None]:
    before, folder = switches.read(), Path.cwd()
    yield
    os.chdir(folder)
    assert switches.put_back(before) == []


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_rude_observer_is_put_right_named_and_dropped(change: Change, fail: bool, plugin: Plugin) -> None:
    body = f"from tests.core.guards import rude; rude.{change.__name__}(None, None, None)"
    body += "; raise ValueError('over')" if fail else ""
    loaded = PluginHost([plugin("a-rude-one", observer(body)), plugin("listener", observer("pass"))])
    before = switches.read()
    loaded.epoch_end(RUN, report())
    assert switches.put_back(before) == []
    loaded.epoch_end(RUN, report())
    assert (calls(loaded, "a-rude-one"), calls(loaded, "listener")) == (1, 2)
    (warning,) = loaded.warnings
    assert all(each in warning for each in ('observer "a-rude-one"', "is not called again"))
    assert ("over" if fail else "it changed ") in warning


def test_observers_may_draw_from_the_global_generators(plugin: Plugin) -> None:
    body = "import random, numpy, torch; random.random(); numpy.random.rand(); torch.rand(3)"
    loaded = PluginHost([plugin("drawing", observer(body))])
    before = generators()
    loaded.epoch_end(RUN, report())
    assert generators() == before
    assert not loaded.warnings


@pytest.mark.parametrize(
    "body",
    [
        "report.train['loss'] = 0.0",
        "report.validation.clear()",
        "object.__setattr__(report, 'best', False)",
        "object.__setattr__(run, 'name', 'other')",
    ],
)
def test_an_observer_changes_only_its_own_copy(body: str, plugin: Plugin) -> None:
    keep = "globals().setdefault('seen', []).append((run, report))"
    loaded = PluginHost([plugin("a-rude-one", observer(body)), plugin("listener", observer(keep))])
    mine = report()
    loaded.epoch_end(RUN, mine)
    listener: Any = loaded.manager.get_plugin("listener")
    assert (mine, RUN.name) == (report(), "run")
    assert listener.seen == [(RUN, report())]
    assert not loaded.warnings


def test_a_result_is_copied_too(plugin: Plugin) -> None:
    row = AttackResult("clean", {"steps": [1]}, 0.5, 0, 2, 0, 1.0, 0.0, 0.1, measures={})
    result = Result("test", 2, {"eps": 0.1}, (row,), {"seconds": 1})
    source = (
        f"{HEAD}@hookimpl\ndef robustplug_run_end(result):\n    result.attacks[0].options['steps'].clear()\n"
    )
    loaded = PluginHost([plugin("rude", source)])
    loaded.run_end(RUN, result)
    assert result.attacks[0].options == {"steps": [1]}
    assert not loaded.warnings
