"""What the engine itself does in an update does not wait for the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustplug.core.types import Batch, Progress
from robustplug.testing import Bench, Subject
from robustplug.testing.checks_syncs import HostSyncs
from robustplug.testing.toys import toy_norm
from robustplug.training.loop import Means, training_loss
from robustplug.training.watch import Watch

ENGINE = str(Path(__file__).parents[2] / "robustplug")
PGD = {"perturbation": {"use": "pgd", "steps": 2}}


@pytest.mark.parametrize("name", ["erm", "pgd-at", "trades", "cat", "free-at"])
def test_watching_an_update_does_not_wait(name: str) -> None:
    """Only the first update of an epoch compares values."""
    bench = Bench(Subject("method", name, {} if name in ("erm", "free-at") else PGD), toy_norm)
    watch, means = Watch(bench.model, bench.method, bench.task), Means()
    batch = bench.batch()
    syncs = HostSyncs(ENGINE, [])
    with syncs.watching():
        watch.start()
        update(bench, watch, means, batch, Progress(0, 1, 0, 3, 0, 3))
        assert any("torch.equal" in found for found in syncs.found)
        syncs.found.clear()
        for number in (1, 2):
            update(bench, watch, means, batch, Progress(0, 1, number, 3, number, 3))
    assert list(syncs.found) == []


def update(bench: Bench, watch: Watch, means: Means, batch: Batch, progress: Progress) -> None:
    (pass_, *_) = bench.passes(progress)
    watch.update(batch, progress)
    step = bench.step(batch, pass_, progress)
    bench.optimizers.zero_grad()
    total, views = training_loss(bench.method, step, after=watch.after)
    step.backward(total)
    bench.method.after_backward(step, views)
    watch.after(bench.method)
    bench.method.after_step(step, views)
    watch.done()
    means.add({"loss": total.detach(), **step.logged}, len(batch), step.counted)
