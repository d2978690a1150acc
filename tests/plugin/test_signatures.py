from __future__ import annotations

from typing import Any

import pytest

from robustplug.plugin.signatures import check_arguments, scaled_step


def attack(
    self: Any,
    model: Any,
    layer: Any,
    eps: float = 0.3,
    alpha: float = 0.1,
    steps: int = 10,
    mode: str = "fast",
    verbose: bool = True,
    shape: tuple[int, ...] = (1, 2),
    mask: Any = None,
    *rest: Any,
    **more: Any,
) -> None:
    """Take what attacks of libraries take."""


RESERVED = {"model": "is the model", "eps": "is the radius"}


def check(**given: Any) -> dict[str, Any]:
    return check_arguments(attack, {"layer": 1, **given}, RESERVED, "the attack")


def test_arguments_are_converted_to_what_the_function_takes() -> None:
    found = check(alpha="2/255", steps=3, shape=[3, 4], mask="1/2", verbose=False, mode="slow")
    assert found == {
        "layer": 1,
        "alpha": 2 / 255,
        "steps": 3,
        "shape": (3, 4),
        "mask": 0.5,
        "verbose": False,
        "mode": "slow",
    }


def test_all_problems_at_once_each_begins_with_its_name() -> None:
    wrong = {"eps": 0.1, "stepz": 1, "verbose": 1, "alpha": "fast", "mode": 3, "steps": True, "rest": 1}
    with pytest.raises(ExceptionGroup) as caught:
        check_arguments(attack, wrong, RESERVED, "the attack")
    texts = [str(error) for error in caught.value.exceptions]
    assert [text.split()[0] for text in texts] == [*wrong, "layer"]
    assert 'did you mean "steps"?' in texts[1]
    assert texts[0] == "eps is the radius: leave it out"
    assert "missing" in texts[-1]


def test_step_sizes_keep_their_ratio() -> None:
    assert scaled_step(attack, "alpha", "eps", 0.6) == pytest.approx(0.2)
    assert scaled_step(attack, "size", "eps", 0.6) is None
    assert scaled_step(attack, "mode", "eps", 0.6) is None
