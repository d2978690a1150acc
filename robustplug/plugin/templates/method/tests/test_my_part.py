"""my-part passes the checks that robustplug runs on every method, and weights its views by α."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from robustplug.testing import Bench, Subject, parametrize_with_checks, toy_plain


@parametrize_with_checks("my-part", kind="method")
def test_the_method_conforms(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("alpha", "weights"), [(1, [1, 0]), (0.25, [0.25, 0.75])])
def test_the_views_are_weighed(alpha: float, weights: list[float]) -> None:
    bench = Bench(Subject("method", "my-part", {"alpha": alpha}), toy_plain)
    views = bench.views(next(iter(bench.steps())))
    assert [view.role for view in views] == ["clean", "adv"]
    assert [view.weight for view in views] == weights
