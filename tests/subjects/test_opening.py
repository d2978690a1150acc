"""The arguments that all entry points share are said once, and shown everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.api import open_evaluation
from robustplug.subjects.opening import Opening, gives_back

ENTRIES: list[Callable[..., Any]] = [robustplug.evaluate, robustplug.audit, open_evaluation]


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_names_and_explains_every_argument(entry: Callable[..., Any]) -> None:
    parameters = inspect.signature(entry).parameters
    assert set(Opening.__annotations__) <= set(parameters)
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    assert parameters["seed"].annotation == "int | None"
    text = inspect.getdoc(entry) or ""
    for name in Opening.__annotations__:
        assert f"{name}" in text.split("Raises:")[0]
    assert "opening:" not in text


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_name_that_is_none_is_refused_with_the_nearest(entry: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r'has no argument "tsak"; did you mean "task"\?'):
        entry(tmp_path, tsak="digits")
    with pytest.raises(TypeError, match=r'has no argument "x": it takes model, '):
        entry(tmp_path, x=1)


def test_a_module_comes_back_on_its_device() -> None:
    class Moved(nn.Module):
        """Remembers where it was moved."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.places = nn.Linear(2, 2), list[Any]()

        def to(self, *args: Any, **kwargs: Any) -> Moved:
            self.places.append(args[0])
            return self

    @gives_back
    def evaluated(model: Any, fail: bool) -> str:
        model.to("elsewhere")
        if fail:
            raise ValueError("no")
        return "result"

    model = Moved()
    assert evaluated(model, False) == "result"
    with pytest.raises(ValueError, match="no"):
        evaluated(model, True)
    assert model.places == ["elsewhere", torch.device("cpu")] * 2
