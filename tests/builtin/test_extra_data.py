"""Training with generated samples, made as SMOTE does, from arrays, folders and shards."""

from __future__ import annotations

import importlib
import io
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import robustplug
from robustplug.api import Feed
from robustplug.builtin.tasks.mix import MixedTask
from robustplug.plugin.build import build
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.runs.folder import MODEL as WEIGHTS

from ..docs.generated import ROOT
from ..training.runs import TASK, merged, tiny
from ..training.test_resume import check_resume

COUNT, SHARE = 90, 0.7
smote: Callable[..., tuple[Tensor, Tensor]] = importlib.import_module("benchmarks.generated").smote


def digits() -> tuple[Tensor, Tensor]:
    task = build(resolve(Use("digits", {k: v for k, v in TASK.items() if k != "use"}), "task"), "task")
    (batch,) = task.batches("train", Feed(batch_size=500))
    return batch.x, batch.y


@pytest.fixture(scope="module")
def generated() -> tuple[Tensor, Tensor]:
    return smote(*digits(), COUNT, torch.Generator().manual_seed(0))


def pictures(x: Tensor) -> list[Image.Image]:
    return [Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()) for image in x]


def arrays(folder: Path, x: Tensor, y: Tensor) -> dict[str, Any]:
    np.savez(folder / "made.npz", image=x.numpy(), label=y.numpy())
    return {"use": "arrays", "path": str(folder / "made.npz")}


def folders(folder: Path, x: Tensor, y: Tensor) -> dict[str, Any]:
    for number, (image, label) in enumerate(zip(pictures(x), y.tolist(), strict=True)):
        (folder / "made" / str(label)).mkdir(parents=True, exist_ok=True)
        image.save(folder / "made" / str(label) / f"{number}.png")
    return {"use": "image-folder", "root": str(folder / "made"), "augment": False, "workers": 0}


def shards(folder: Path, x: Tensor, y: Tensor) -> dict[str, Any]:
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number, (image, label) in enumerate(zip(pictures(x), y.tolist(), strict=True)):
                if number % 2 == shard:
                    png = io.BytesIO()
                    image.save(png, "png")
                    for name, data in ((f"{number}.png", png.getvalue()), (f"{number}.cls", b"%d" % label)):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(data)
                        archive.addfile(entry, io.BytesIO(data))
    return {"use": "webdataset", "train": str(folder / "{0..1}.tar"), "augment": False, "workers": 0}


def mixed(folder: Path, source: Callable[..., dict[str, Any]], x: Tensor, y: Tensor) -> dict[str, Any]:
    extra = {**source(folder, x, y), "validation": 0, "test": 0}
    base: dict[str, Any] = TASK
    if source is not arrays:  # pictures have three channels
        real, labels = digits()
        np.savez(folder / "real.npz", x=real.expand(-1, 3, -1, -1).numpy(), y=labels.numpy())
        base = {"use": "arrays", "path": str(folder / "real.npz")}
    return {"use": "mix", "base": base, "extra": extra, "share": SHARE}


def test_smote_stays_between_samples_of_a_class(generated: tuple[Tensor, Tensor]) -> None:
    (x, y), (made, labels) = digits(), generated
    apart = torch.cdist(made.flatten(1), x.flatten(1))
    assert float(apart.min(1).values.min()) > 0
    assert float((y[apart.argmin(1)] == labels).float().mean()) > 0.9


@pytest.mark.parametrize("source", [arrays, folders, shards])
def test_extra_samples_come_from_any_source_and_are_remembered(
    source: Callable[..., dict[str, Any]], generated: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    task = mixed(tmp_path, source, *generated)
    recipe = merged(tiny("cat", train={"epochs": 1}), {"method": {"eta": 0.01}})
    run = robustplug.train({**recipe, "task": task}, out=tmp_path / "run")
    assert run.parts is not None
    made = run.parts.task
    assert isinstance(made, MixedTask)
    real = made.base.info.sizes["train"]
    # No generated sample is held out.
    assert made.info.training_indices == real + COUNT
    (memory,) = run.parts.method.state.memories()
    assert len(memory.values) == real + COUNT
    assert bool((memory.values[real:] > 0).any())
    assert run.result.meta["training"]["mechanism"]["extra"] == pytest.approx(SHARE, abs=0.05)
    for split in ("validation", "test"):
        assert made.info.sizes[split] == made.base.info.sizes[split]
    # The pixels of each index are those of the generated sample.
    x = (generated[0] * 255).round() / 255 if source is not arrays else generated[0]
    batch = next(made.batches("train", Feed(batch_size=40, shuffle=True)))
    rows = (batch.index >= real).nonzero()[:, 0]
    assert len(rows) == 28
    nearest = torch.cdist(
        batch.x[rows][:, :1].flatten(1), x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert float(nearest.min(1).values.max()) < 1e-3
    assert torch.equal(batch.y[rows], generated[1][nearest.argmin(1)])


@pytest.mark.table(1)
@pytest.mark.parametrize("method", ["cat", pytest.param("iaat", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_with_the_same_bits(
    method: str, generated: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    check_resume({**tiny(method), "task": mixed(tmp_path, arrays, *generated)}, tmp_path, (3,))


def test_a_run_labels_the_extra_samples(generated: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    teacher = robustplug.train(tiny(), out=tmp_path / "teacher")
    unknown = torch.arange(COUNT) % 2  # no labels of theirs
    task = {**mixed(tmp_path, arrays, generated[0], unknown), "teacher": str(tmp_path / "teacher")}
    recipe = {**tiny("pgd-at"), "task": task}
    run = robustplug.train(recipe, out=tmp_path / "run")
    assert run.parts is not None
    made = run.parts.task
    with torch.no_grad():
        predicted = teacher.model(generated[0]).argmax(1)
    real = made.info.sizes["train"] and made.info.training_indices - COUNT
    for batch in made.batches("train", Feed(batch_size=40, shuffle=True)):
        extra = batch.index >= real
        assert torch.equal(batch.y[extra], predicted[batch.index[extra] - real])
    # Once trained, the run does not need its teacher.
    (tmp_path / "teacher" / WEIGHTS).unlink()
    again = robustplug.evaluate(tmp_path / "run")
    assert again.attacks[0].accuracy == run.result.attacks[0].accuracy
    with pytest.raises(RecipeError, match="is not the folder of a finished run"):
        robustplug.train(recipe, out=tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_the_recipe_for_generated_images_trains(generated: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    recipe = tomllib.loads((ROOT / "recipes" / "trades-extra-cifar10.toml").read_text())
    crop, flip = recipe["train"]["augment"]
    smaller = {
        "task": mixed(tmp_path, arrays, *generated),
        "model": {"use": "small-cnn", "width": 4, "hidden": 16},
        "method": {**recipe["method"], "warmup": 0},
        "evaluate": {"samples": 32, "attack": [{"use": "fgsm"}]},
        "validate": {"samples": 32},
        "train": {
            "epochs": 1,
            "batch_size": 40,
            "augment": [{**crop, "size": 8, "padding": 1}, flip],
        },
    }
    run = robustplug.train({**recipe, **smaller}, out=tmp_path / "run")
    assert run.result.meta["training"]["mechanism"].keys() == {"moved", "average", "extra"}
    assert run.result.threat == {"use": "linf", "eps": 8 / 255}


def test_the_split_to_evaluate_on_may_not_be_empty(generated: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    task = {**arrays(tmp_path, *generated), "test": 0}
    with pytest.raises(RecipeError, match='is "test", and this split of the task is empty'):
        robustplug.train({**tiny(), "task": task}, out=tmp_path / "run")
    run = robustplug.train(
        {**tiny(evaluate={"split": "validation"}, train={"epochs": 1}), "task": task}, out=tmp_path / "run"
    )
    assert run.result.split == "validation"
