from __future__ import annotations

import re
from typing import Any

import pytest

from robustplug.errors import Failed
from robustplug.plugin.build import build
from robustplug.plugin.component import Component, Use
from robustplug.plugin.culprit import UNKNOWN, culprit, failed, one_line
from robustplug.plugin.host import HERE, register, registry
from robustplug.recipe.convert import resolve


class Loss:
    def __init__(self, options: Any) -> None:
        pass

    def __call__(self, error: BaseException) -> None:
        raise error


def raised(call: Any, *arguments: Any) -> BaseException:
    with pytest.raises(BaseException) as found:
        call(*arguments)
    return found.value


@pytest.fixture
def loss() -> Any:
    register("loss", Component("culprit", Loss))
    yield build(resolve(Use("culprit"), "loss"), "loss")
    del registry().components["loss", "culprit"], registry().owners["loss", "culprit"]


def test_the_component_whose_code_ran_is_named(loss: Any) -> None:
    who = culprit(raised(loss, ValueError("boom")))
    assert who.name == 'loss "culprit" of your program'
    assert not who.ours
    assert HERE not in who.name


def test_the_innermost_component_is_named() -> None:
    from robustplug.builtin.perturbations.pgd import Pgd

    options = resolve(Use("pgd"), "perturbation").options
    error = raised(Pgd(options, loss=None), None, None, None)
    assert culprit(error).name == 'perturbation "pgd" of robustplug'
    assert culprit(error).ours


def test_code_of_no_component_is_robustplugs_own() -> None:
    assert culprit(raised(int, "x")) == UNKNOWN
    assert "please report" in str(failed(raised(int, "x")))


def test_the_first_cause_counts(loss: Any) -> None:
    def wrapped() -> None:
        try:
            loss(ValueError("boom"))
        except ValueError as error:
            raise RuntimeError("the batch failed") from error

    assert culprit(raised(wrapped)).name == 'loss "culprit" of your program'


def test_the_message_has_one_line_of_bounded_length(loss: Any) -> None:
    error = raised(loss, ValueError("a\n  b\n" + "x" * 5000))
    assert len(one_line(error)) < 400
    found = failed(error, "epoch 2, batch 3 of 4", "Nothing is lost.")
    assert isinstance(found, Failed)
    head = 'loss "culprit" of your program failed in epoch 2, batch 3 of 4: ValueError: a b xxx'
    assert str(found).startswith(head)
    assert re.search(r"xxx\.\.\. \(test_culprit\.py, line \d+\)\. Nothing is lost\.$", str(found))
    assert "report" not in str(found)
    assert "\n" not in str(found)
