"""What authors of plugins have tried, and once failed at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from robustplug.api import Batch, Component, Method, MethodOptions, Step, Use, View, training_loss, use
from robustplug.recipe.convert import resolve
from robustplug.recipe.suite import SuiteRow
from robustplug.testing import Bench, Subject, run_checks, toy_plain
from tests.docs.generated import ROOT
from tests.training.runs import offered


@dataclass(frozen=True)
class HelpedOptions(MethodOptions):
    """Options of the method below."""

    perturbation: Use = use("pgd", steps=2, loss=use("margin", kappa=1.0))
    loss: Use = use("trades")
    scored: bool = True


class Helped(Method[HelpedOptions]):
    """Train on the negatives of images, too, with the loss of clean views."""

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        helper = View.of(point, "helper", treat_as="clean", scored=self.options.scored)
        return [View.of(point), helper.replace(x=1 - point.x)]


HELPED = Component("helped", Helped, HelpedOptions, "clean images and their negatives")


@pytest.mark.parametrize("scored", [True, False])
def test_a_helper_view_has_the_clean_loss_and_a_name_of_its_own(scored: bool) -> None:
    with offered("method", HELPED):
        bench = Bench(Subject("method", "helped", {"scored": scored}), toy_plain)
        step = bench.step(bench.batch())
        training_loss(bench.method, step)
    x, y = step.batch.x, step.batch.y
    for name, inputs in (("clean", x), ("helper", 1 - x)):
        with torch.no_grad():
            logits = bench.model(inputs)
        loss = torch.nn.functional.cross_entropy(logits, y)
        torch.testing.assert_close(step.logged[f"loss/{name}"].mean(), loss)
        if name == "clean" or scored:
            accuracy = (logits.argmax(1) == y).float().mean()
            torch.testing.assert_close(step.logged[f"accuracy/{name}"].float().mean(), accuracy)
    assert ("accuracy/helper" in step.logged) == scored


def test_a_default_within_a_default_has_the_options_that_it_states() -> None:
    with offered("method", HELPED):
        attack = resolve(Use("helped"), "method").options.perturbation
    assert (attack.name, attack.options.steps) == ("pgd", 2)
    assert (attack.options.loss.name, attack.options.loss.options.kappa) == ("margin", 1.0)


class Broken(Method[MethodOptions]):
    """A method that cannot be built."""

    def __init__(self, options: Any, **slots: Any) -> None:
        raise RuntimeError("the file of the method is missing")


def test_an_error_of_the_set_up_is_told_once() -> None:
    with offered("method", Component("broken", Broken, MethodOptions, "broken")):
        failed = [outcome for outcome in run_checks("broken") if not outcome.passed]
    told = [outcome.detail for outcome in failed if "the file of the method is missing" in outcome.detail]
    assert len(told) == 1
    assert len(failed) > 5
    assert {outcome.detail for outcome in failed[1:]} == {f"the same error as in {failed[0].check}"}


def test_every_key_of_a_row_of_a_suite_is_documented() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    assert {field.name for field in dataclasses.fields(SuiteRow)} | {"sweep"} <= keys
