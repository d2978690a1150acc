"""Generated samples lie between training samples of a class, and the same seed gives the same."""

from __future__ import annotations

import sys
from pathlib import Path

import cifar_subset
import generated
import numpy as np
import pytest
import torch
from PIL import Image


def test_a_sample_is_between_two_neighbours_of_its_class() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 1, 2, 2, generator=rng), torch.arange(60) % 3
    made, labels = generated.smote(x, y, 50, rng, near=3)
    assert made.shape == (50, 1, 2, 2)
    for point, label in zip(made.flatten(1), labels, strict=True):
        own = x[y == label].flatten(1)
        apart = torch.cdist(own, own)
        # On a segment, the distances to both ends add up to its length.
        to = torch.cdist(point[None], own, compute_mode="donot_use_mm_for_euclid_dist")[0]
        between = to[:, None] + to[None] - torch.cdist(own, own, compute_mode="donot_use_mm_for_euclid_dist")
        between.fill_diagonal_(1)
        first, second = divmod(int(between.argmin()), len(own))
        assert float(between.min()) < 1e-5
        rank = min(int((apart[at] < apart[at, to_]).sum()) for at, to_ in ((first, second), (second, first)))
        assert rank <= 3


def test_the_file_is_made_of_training_samples_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        arguments = ["--task", "digits", "--count", "40", "--out", str(tmp_path / f"{name}.npz")]
        monkeypatch.setattr(sys, "argv", ["generated.py", *arguments])
        generated.main()
    first, second = (np.load(tmp_path / f"{name}.npz") for name in ("a", "b"))
    assert np.array_equal(first["image"], second["image"])
    assert first["image"].shape == (40, 1, 8, 8)
    assert first["label"].dtype == np.int64
    x, _ = generated.training_samples({"use": "digits"})
    assert len(x) == 1797 - 360 - 180


def test_a_part_of_cifar_is_the_pixels_of_different_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = iter(range(200))
    for split, count in (("train", 20), ("test", 6)):
        for name in ("cat", "ship"):
            (tmp_path / "all" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((32, 32, 3), next(value), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "all" / split / name / f"{number}.png")
    part = tmp_path / "part.npz"
    arguments = [str(tmp_path / "all"), "--train", "10", "--test", "4", "--out", str(part)]
    monkeypatch.setattr(sys, "argv", ["cifar_subset.py", *arguments])
    cifar_subset.main()
    found = np.load(part)
    assert found["x_train"].shape == (10, 3, 32, 32)
    assert found["x_train"].dtype == np.uint8
    # Images of each class have values of their own, in the order in which they were written.
    for split, edge in (("train", 20), ("test", 46)):
        values = found[f"x_{split}"][:, 0, 0, 0].astype(int)
        assert len(set(values)) == len(values)
        assert np.array_equal(found[f"y_{split}"], values >= edge)
    assert {int(each) for each in found["y_test"]} == {0, 1}
    x, _ = generated.training_samples({"use": "arrays", "path": str(part)})
    assert len(x) == 10
