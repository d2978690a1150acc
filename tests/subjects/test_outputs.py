"""What a model returns is checked on a few images, and what is odd about it is noted."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustplug.api import Refused
from robustplug.errors import RunError
from robustplug.subjects.formats.adapter import Adapter, Sizes
from robustplug.subjects.loading import load_target

from .models import INFO, attacked, bare, close, images

Both = namedtuple("Both", ["logits", "features"])


class Ends(nn.Module):
    """Hand what a network returns to a function."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.end = bare(), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.network(x))


OBVIOUS: dict[str, Callable[[Tensor], Any]] = {
    "tuple of one": lambda z: (z,),
    "list with features": lambda z: [z, z.new_zeros(len(z), 3, 4)],
    "tuple, features first": lambda z: (z.new_zeros(len(z), 3), None, z),
    "tuple of two like logits": lambda z: (z, -z),
    "logits": lambda z: {"logits": z, "probabilities": z.softmax(1)},
    "dictionary of one": lambda z: OrderedDict(out=z, aux=z[:, :2]),
    "named tuple": lambda z: Both(z, z[:, :4]),
    "numpy": lambda z: {"label": z.argmax(1).numpy(), "scores": z.detach().numpy()},
}


@pytest.mark.parametrize("kind", OBVIOUS)
def test_logits_are_found_among_outputs(kind: str) -> None:
    target = load_target(Ends(OBVIOUS[kind]), INFO)
    close(target.module, bare())
    assert any("is used" in note for note in target.description["notes"])
    assert target.gradients is (kind != "numpy")
    if target.gradients:
        attacked(target.module, "fgsm")


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda z: {"a": z, "b": -z}, r"returns the logits"),
        (lambda z: (z[:, :3], None), r"of: 0 \(2, 3\), 1 NoneType"),
        (lambda z: None, "not a NoneType of: nothing"),
        (lambda z: "text", "not a str"),
        (lambda z: z.argmax(1).float(), "class indices as integers"),
        (lambda z: z.argmax(1) > 4, "class indices as integers"),
        (lambda z: z.argmax(1) + 3, r"class indices must be 0 to 9, not 1\d"),
        (lambda z: (z.argmax(1), z.argmax(1)), r"of: 0 \(2,\), 1 \(2,\)"),
        (lambda z: z[:, :7], "has 7 classes, the task 10"),
        (lambda z: z[:1], "one row of 10 logits for each image"),
        (lambda z: z[:, :, None], "one row of 10 logits"),
        (lambda z: z.round().long(), "must be floating-point numbers"),
        (lambda z: z / 0, "not finite"),
        (lambda z: z.expand(2, 10), "cannot take 3 images .* it accepts 2: export it"),
        (lambda z: z @ z, r"cannot take 2 images of shape \(1, 8, 8\).*RuntimeError"),
    ],
)
def test_other_outputs_are_refused(end: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_target(Ends(end), INFO)


NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "int64": lambda z: z.argmax(1),
    "uint8": lambda z: z.argmax(1).byte(),
    "numpy": lambda z: z.argmax(1).numpy().astype("uint16"),
    "among outputs": lambda z: [z.argmax(1), [{"0": 0.1}] * len(z)],
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_class_numbers_become_decisions(kind: str) -> None:
    target = load_target(Ends(NUMBERS[kind]), INFO)
    note = target.description["notes"][-1]
    assert "only decisions" in note
    assert (target.gradients, target.description["decisions"]) == (False, True)
    for rows in (1, 7):
        logits = target.module(images(rows))
        assert torch.equal(logits, nn.functional.one_hot(bare()(images(rows)).argmax(1), 10).float())
    with pytest.raises(Refused, match="black-box"):
        attacked(target.module, "fgsm")


def notes_of(end: Callable[[Tensor], Any]) -> list[str]:
    notes = load_target(Ends(end), INFO, mean=[0.3], std=[0.4]).description["notes"]
    assert isinstance(notes, list)
    return notes


def test_the_scale_of_outputs_is_no_concern_of_the_trial() -> None:
    # An evaluation reads it from clean samples.
    assert notes_of(lambda z: z.softmax(1)) == []
    assert notes_of(lambda z: z) == []
    assert notes_of(lambda z: z.sigmoid()) == []
    assert notes_of(lambda z: z.log_softmax(1)) == []


def test_randomness_is_noted_and_the_generator_kept() -> None:
    before = torch.get_rng_state()
    (note,) = notes_of(lambda z: z + torch.randn_like(z))
    assert torch.equal(torch.get_rng_state(), before)
    assert "from call to call" in note


def test_dependence_on_the_batch_is_noted() -> None:
    (note,) = notes_of(lambda z: z - z.mean(0))
    assert "other images of its batch" in note


def test_black_images_may_be_outside_a_models_domain() -> None:
    class Standardised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x / x.flatten(1).std(1).view(-1, 1, 1, 1)).flatten(1)[:, :10]

    notes = load_target(Standardised(), INFO).description["notes"]
    assert any("all-black" in note for note in notes)


def test_a_model_in_double_precision_is_told_so() -> None:
    with pytest.raises(RunError, match="float32"):
        load_target(bare().double(), INFO)


@pytest.mark.parametrize("sizes", [Sizes(1, 1), Sizes(3, 3), Sizes(2), Sizes(1, 4), Sizes(2, 5)])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 11])
def test_batches_are_padded_and_split(sizes: Sizes, rows: int) -> None:
    asked = []

    def function(x: Tensor) -> Tensor:
        asked.append(len(x))
        return 2 * x.flatten(1)

    x = images(rows).requires_grad_()
    adapter = Adapter(function, sizes)
    assert torch.equal(adapter(x), 2 * x.flatten(1))
    assert all(sizes.least <= size <= (sizes.most or size) for size in asked)
    (gradient,) = torch.autograd.grad(adapter(x).sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 2))
