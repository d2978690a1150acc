"""my-part passes the checks that robustplug runs on every model, and says what it cannot take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import robustplug
from robustplug.api import TaskInfo
from robustplug.testing import parametrize_with_checks


@parametrize_with_checks("my-part", kind="model")
def test_the_model_conforms(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("shape", [(1, 3, 8), (20,), None])
def test_other_inputs_are_refused(shape: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match="classifies images of at least 4x4"):
        robustplug.build("model", "my-part", info=TaskInfo({}, shape, 10))
