"""Augmentation: what it does to pixels, and what its randomness depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from robustplug.builtin.tasks.augment import Augmentation, random_crop, random_flip
from robustplug.core.random import stream
from robustplug.core.types import Feed


def images(count: int = 7) -> Tensor:
    return torch.randint(1, 256, (count, 3, 5, 6), generator=stream(0, "images")).to(torch.uint8)


def test_crop_matches_padding_and_slicing_image_by_image() -> None:
    x, pad = images(9), 2
    top, left = torch.randint(2 * pad + 1, (2, 9), generator=stream(0))
    cropped = random_crop(x, pad, top, left)
    for number, image in enumerate(x):
        canvas = torch.zeros(3, 5 + 2 * pad, 6 + 2 * pad, dtype=torch.uint8)
        canvas[:, pad:-pad, pad:-pad] = image
        row, column = int(top[number]), int(left[number])
        assert torch.equal(cropped[number], canvas[:, row : row + 5, column : column + 6])


def test_crop_at_the_padding_leaves_images_alone_and_elsewhere_shows_zeros() -> None:
    x = images(2)
    same = random_crop(x, 2, torch.tensor([2, 2]), torch.tensor([2, 2]))
    assert torch.equal(same, x)
    moved = random_crop(x, 2, torch.tensor([0, 2]), torch.tensor([2, 4]))
    assert (moved[0, :, :2] == 0).all()
    assert torch.equal(moved[0, :, 2:], x[0, :, :-2])
    assert (moved[1, :, :, -2:] == 0).all()
    assert torch.equal(moved[1, :, :, :-2], x[1, :, :, 2:])


def test_flip_mirrors_only_the_chosen_images() -> None:
    x = images(3)
    flipped = random_flip(x, torch.tensor([True, False, True]))
    assert torch.equal(flipped[0], x[0].flip(-1))
    assert torch.equal(flipped[1], x[1])
    assert torch.equal(flipped[2], x[2].flip(-1))


def test_same_bits_from_floats_and_bytes() -> None:
    feed, augment = Feed(batch_size=7, augment=True), Augmentation(pad=2, flip=True)
    assert torch.equal(augment(images(), feed, 3).float(), augment(images().float(), feed, 3))


def test_ranks_interleave_to_the_whole_batch_also_when_it_is_ragged() -> None:
    augment, x = Augmentation(pad=2, flip=True), images(7)
    for batch_size in (7, 16):
        whole = augment(x, Feed(batch_size=batch_size), 4)
        for world in (2, 3):
            for rank in range(world):
                part = augment(x[rank::world], Feed(batch_size=batch_size, rank=rank, world=world), 4)
                assert torch.equal(part, whole[rank::world])


def test_a_ragged_batch_gets_the_draws_of_a_full_one() -> None:
    augment, feed, x = Augmentation(pad=2, flip=True), Feed(batch_size=7), images(7)
    assert torch.equal(augment(x[:4], feed, 0), augment(x, feed, 0)[:4])


def test_seed_epoch_and_batch_number_each_change_the_draws() -> None:
    augment, x = Augmentation(pad=2, flip=True), images()
    base = augment(x, Feed(batch_size=7), 0)
    assert torch.equal(base, augment(x, Feed(batch_size=7), 0))
    for feed, number in (
        (Feed(batch_size=7, seed=1), 0),
        (Feed(batch_size=7, epoch=1), 0),
        (Feed(batch_size=7), 1),
    ):
        assert not torch.equal(base, augment(x, feed, number))


def test_shifts_reach_both_ends_and_half_of_the_images_are_mirrored() -> None:
    # One white column pixel in the middle tells the shift; an image without symmetry the mirroring.
    count = 2000
    x = torch.zeros(count, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    shifted = Augmentation(pad=2)(x, Feed(batch_size=count), 0).flatten(1).argmax(1)
    rows, columns = shifted // 9, shifted % 9
    for positions in (rows, columns):
        counts = torch.bincount(positions, minlength=9)
        assert counts[[0, 1, 7, 8]].sum() == 0
        assert counts[2:7].min() > 0.8 * count / 5
    x[:, 0, 4, 5] = 2
    mirrored = Augmentation(flip=True)(x, Feed(batch_size=count), 0)[:, 0, 4, 3] == 2
    assert abs(mirrored.float().mean() - 0.5) < 0.05


def test_no_augmentation_returns_the_images() -> None:
    assert torch.equal(Augmentation()(images(), Feed(batch_size=7), 0), images())
