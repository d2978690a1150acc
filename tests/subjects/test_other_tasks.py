"""Tasks without images: a module is taken as it is, anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from robustplug.core.types import TaskInfo
from robustplug.errors import RunError
from robustplug.subjects.loading import load_target

INFO = TaskInfo(sizes={"train": 1, "validation": 1, "test": 1})


def test_a_module_is_taken_as_it_is() -> None:
    module = nn.Linear(1, 1)
    target = load_target(module, INFO)
    assert target.module is module
    assert target.description == {"source": "Linear", "kind": "module", "notes": []}


NET = nn.Linear(1, 1)
REFUSED: list[tuple[Any, dict[str, Any]]] = [
    (lambda x: x, {}),
    ("net.onnx", {}),
    (NET, {"mean": [0.5], "std": [0.5]}),
    (NET, {"weights": "DEFAULT"}),
]


@pytest.mark.parametrize(("source", "options"), REFUSED)
def test_anything_else_is_refused(source: Any, options: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="no images of one size"):
        load_target(source, INFO, **options)
