"""On a GPU, batches are the same as on the CPU, and none makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustplug.api import ArrayTask, Batch, Feed, Task, Use, build, stream
from robustplug.builtin.tasks.augment import Augmentation
from robustplug.core.batches import to_device
from robustplug.recipe.convert import resolve

from ..builtin.test_image_folder import write_tree

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["arrays", "pictures"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    if request.param == "pictures":
        options = {"root": str(write_tree(tmp_path, count=20)), "augment": True}
        found: Task = build(resolve(Use("image-folder", options), "task"), "task")
        return found
    x = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=stream(0, "x"))
    y = torch.randint(0, 3, (50,), generator=stream(0, "y"))
    return ArrayTask({"train": (x, y)}, augmentation=Augmentation(pad=2, flip=True))


def epoch(task: Task, number: int, device: str) -> Iterator[Batch]:
    feed = Feed(batch_size=8, shuffle=True, augment=True, seed=3, epoch=number, device=device)
    return task.batches("train", feed)


def test_batches_are_the_same_as_on_the_cpu(task: Task) -> None:
    for number in range(3):
        for here, there in zip(epoch(task, number, "cpu"), epoch(task, number, "cuda"), strict=True):
            for one, other in zip((here.x, here.y, here.index), (there.x, there.y, there.index), strict=True):
                assert other.is_cuda
                assert torch.equal(one, other.cpu())


def test_batches_make_the_host_wait_for_nothing(task: Task) -> None:
    # The first epoch copies the samples.
    for number in range(2):
        list(epoch(task, number, "cuda"))
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert list(epoch(task, 2, "cuda"))
        to_device(torch.arange(3), "cuda")
        with pytest.raises(RuntimeError, match="synchroniz"):  # which the mode would find
            torch.arange(3).to("cuda")
    finally:
        torch.cuda.set_sync_debug_mode(before)
