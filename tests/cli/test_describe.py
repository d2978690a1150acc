"""robustplug describe: what it prints, draws and finds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustplug.core.types import Feed
from robustplug.errors import BrokenData
from robustplug.run import build
from robustplug.subjects.data.describe import describe, find_faults
from robustplug.subjects.data.task import ArrayTask

from ..subjects.pictures import bits, picture
from .conftest import Invoke

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for at in range(10):
            image = Image.fromarray(bits(picture(20, 20, 3, seed=100 * number + at), 8))
            image.save(root / name / f"{at}.png")
    return root


def test_it_prints_sizes_ranges_and_classes_and_draws_samples(cli: Invoke, tmp_path: Path) -> None:
    result = cli("describe", "digits")
    assert result.exit_code == 0
    assert "digits · inputs (1, 8, 8) · 10 classes · bounds [0, 1]" in result.output
    printed = " ".join(result.output.replace("│", " ").split())
    for row in ("train 1,257 0 to 1 256 122 to 128", "test 360 0 to 1 256 35 to 37", "7 125 18 36"):
        assert row in printed, row
    with Image.open(tmp_path / "describe.png") as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 500
    assert "describe.png" in result.output


def test_a_folder_with_its_options(cli: Invoke, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "photos.png"
    result = cli(
        "describe", "image-folder", "--set", f"task.root={tree}", "--set", "task.size=16", "--out", out
    )
    assert result.exit_code == 0
    assert "inputs (3, 16, 16) · 3 classes" in result.output
    assert all(name in result.output for name in CLASSES)
    assert out.is_file()


def test_a_recipe(cli: Invoke, tmp_path: Path) -> None:
    recipe = 'schema = 1\nname = "r"\n[task]\nuse = "digits"\ntest = 100\n[method]\nuse = "erm"\n'
    (tmp_path / "r.toml").write_text(recipe)
    assert "100" in cli("describe", "r.toml").output
    assert "77" in cli("describe", "r.toml", "--set", "task.test=77").output
    assert cli("describe", "cat").output.startswith("digits")  # a bundled one


def test_tables_have_no_samples_to_draw(cli: Invoke, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 3)) * [1, 10, 100]
    np.savez(tmp_path / "a.npz", x=x, y=np.array(CLASSES)[np.arange(40) % 3])
    result = cli("describe", "arrays", "--set", "task.path=a.npz", "--set", "task.bounds=measured", "--check")
    assert result.exit_code == 0, result.output
    assert "inputs (3,) · 3 classes · bounds [0" in result.output
    assert not (tmp_path / "describe.png").exists()


def test_other_channels_and_bounds_are_drawn(cli: Invoke, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 5, 9, 200)) * 40 - 20
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    result = cli("describe", "arrays", "--set", "task.path=a.npz", "--set", "task.bounds=[-20, 20]")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "describe.png").is_file()
    found = describe(build("task", "arrays", path="a.npz", bounds=[-20, 20]))
    images = [image for row in found.samples.values() for _, image in row]
    assert {image.shape for image in images} == {(3, 7, 160)}
    assert all(0 <= image.min() < image.max() <= 1 for image in images)


def test_texts_are_described(cli: Invoke) -> None:
    result = cli("describe", "synthetic-translation", "--check")
    assert result.exit_code == 0
    assert "no fixed shape · no classes" in result.output
    assert "two splits: not looked for" in result.output


def test_the_check_finds_nothing_in_sound_data(cli: Invoke, tree: Path) -> None:
    result = cli("describe", "image-folder", "--set", f"task.root={tree}", "--check")
    assert result.exit_code == 0
    for line in ("broken samples: none", "stand in two splits: none", "classes with one sample: none"):
        assert line in result.output


def test_the_check_lists_all_that_is_wrong(cli: Invoke, tree: Path) -> None:
    for at in range(3):
        path = tree / "cat" / f"{at}.png"
        path.write_bytes(path.read_bytes()[: 40 * at])
    for at in range(9):
        shutil.copy(tree / "dog" / "5.png", tree / "dog" / f"copy{at}.png")
    (tree / "emu").mkdir()
    Image.new("RGB", (20, 20), "red").save(tree / "emu" / "only.png")
    result = cli("describe", "image-folder", "--set", f"task.root={tree}", "--check")
    assert result.exit_code == 1
    assert "broken samples: 3" in result.output
    assert all(f"{at}.png cannot be read" in result.output for at in range(3))
    assert "classes with one sample: 1\n  emu" in result.output
    (line, *_) = [line for line in result.output.splitlines() if "dog" in line and "=" in line]
    first, second = line.split(" = ")
    assert first.split()[0] != second.split()[0]


def test_without_the_check_broken_files_stop_it(cli: Invoke, tree: Path) -> None:
    (tree / "cat" / "3.png").write_bytes(b"")
    result = cli("describe", "image-folder", "--set", f"task.root={tree}")
    assert result.exit_code == 2
    assert "cat/3.png cannot be read" in result.output
    assert 'task.broken = "skip"' in result.output
    skipped = cli("describe", "image-folder", "--set", f"task.root={tree}", "--set", "task.broken=skip")
    assert skipped.exit_code == 0
    assert "note: broken samples skipped: 1" in skipped.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], 'Did you mean "digits"?'),
        (["nothing.toml"], "neither a task nor a recipe"),
        (["digits", "--set", "task.tset=3"], 'did you mean "test"'),
        (["digits", "--set", "task.test=-3"], "task.test"),
        (["digits", "--out", "sheet.jpg"], "ends in .png"),
        (["mnist"], "ROBUSTPLUG_DATA"),
        (["arrays"], "task.path"),
        (["huggingface:./nothing"], "there is no folder"),
    ],
)
def test_wrong_arguments(cli: Invoke, arguments: list[str], message: str) -> None:
    result = cli("describe", *arguments)
    assert result.exit_code == 2
    assert message in result.output


# The reading itself


class Flaky(ArrayTask):
    """Fail on batches that contain certain samples."""

    bad = (3, 64, 70, 149)

    def batches(self, split, feed):  # type: ignore[no-untyped-def]
        for batch in super().batches(split, feed):
            wrong = sorted(set(batch.index.tolist()) & set(self.bad))
            if wrong:
                raise BrokenData(f"sample {wrong[0]}")
            yield batch


def flaky() -> Flaky:
    x = torch.rand(150, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return Flaky({"train": (x, torch.arange(150) % 2), "test": (x[140:], torch.arange(10) % 2)})


def test_every_broken_sample_is_found_alone_and_all_others_are_read() -> None:
    faults = find_faults(flaky())
    # Sample 3 of the test split fails, too.
    assert faults.broken == ["sample 3", "sample 64", "sample 70", "sample 149", "sample 3"]
    assert faults.twins is not None
    assert [one for one, _ in faults.twins] == [f"train {140 + at}" for at in range(9) if at != 3]
    assert faults.lonely == []


def test_a_class_of_one_sample_is_counted_over_all_splits() -> None:
    x = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3])
    rows = {"train": [0, 3, 6, 1], "test": [2, 4, 5, 7]}
    task = ArrayTask({split: (x[at], y[at]) for split, at in rows.items()})  # type: ignore[misc]
    assert find_faults(task).lonely == ["2", "3"]
    assert describe(task).splits["train"].counts == {0: 2, 1: 1, 2: 1}


def test_the_first_samples_are_measured_and_all_labels_counted() -> None:
    task = build("task", "digits")
    found = describe(task, measured=50)
    facts = found.splits["train"]
    x = torch.cat([batch.x for batch in task.batches("train", Feed(samples=50))])
    assert (facts.measured, facts.low, facts.high) == (50, float(x.min()), float(x.max()))
    assert facts.counted == sum(facts.counts.values()) == facts.size == 1257
    assert set(found.samples) == {str(digit) for digit in range(10)}
