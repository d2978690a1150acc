"""Run the checks: from pytest, or on their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from ..errors import Refused
from ..plugin.component import KINDS, Kind
from ..plugin.host import registry
from ..plugin.registry import did_you_mean
from . import checks_component, checks_parts, checks_slots, checks_training, checks_views
from .bench import Subject

if TYPE_CHECKING:
    import pytest

CheckFunction = Callable[[Subject], None]

_TRAINED = (*checks_views.UPDATE_CHECKS, *checks_training.TRAINING_CHECKS)

_BY_KIND: dict[Kind, tuple[CheckFunction, ...]] = {
    "vicinity": (*checks_slots.VICINITY_CHECKS, *_TRAINED),
    "perturbation": (
        *checks_slots.PERTURBATION_CHECKS,
        *checks_views.VIEW_CHECKS,
        *checks_training.TRAINING_CHECKS,
    ),
    "label_map": (*checks_slots.LABEL_MAP_CHECKS, *_TRAINED),
    "output_map": (*checks_slots.OUTPUT_MAP_CHECKS, *_TRAINED),
    "loss": (*checks_slots.LOSS_CHECKS, *_TRAINED),
    "method": (*checks_views.VIEW_CHECKS, *checks_training.METHOD_CHECKS),
    "task": checks_parts.TASK_CHECKS,
    "model": checks_parts.MODEL_CHECKS,
    "optimizer": checks_parts.OPTIMIZER_CHECKS,
    "schedule": checks_parts.SCHEDULE_CHECKS,
}


_SLOTS = ("vicinity", "perturbation", "label_map", "output_map", "loss")


def checks_for(kind: Kind) -> Iterator[CheckFunction]:
    """Yield the checks of a kind: functions of a Subject that raise AssertionError, or SkipTest.

    A check's name is that of its function; the first line of its docstring says what it demands.
    """
    yield from checks_component.CHECKS
    yield from _BY_KIND[kind]


@dataclass(frozen=True)
class Check:
    """One check of one component; call it to run it.

    Attributes:
        function: from `checks_for`.
        subject: what it checks.
    """

    function: CheckFunction
    subject: Subject

    @property
    def name(self) -> str:
        """Return the check's name."""
        return self.function.__name__

    @property
    def demand(self) -> str:
        """Return in one line what the component has to do."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            AssertionError: it fails; the message says why. An error of the component passes through.
            unittest.SkipTest: it does not apply, or the component refuses what is tried; pytest reports
                it as skipped.
        """
        try:
            self.function(self.subject)
        except Refused as reason:
            raise SkipTest(f"refused: {reason}") from None


@dataclass(frozen=True)
class Outcome:
    """Tell how a check went.

    Attributes:
        check: its name.
        passed: it did not fail.
        detail: why it failed or was skipped; "" otherwise.
        skipped: it does not apply to this component, or its data is not there.
        demand: what the component has to do.
    """

    check: str
    passed: bool
    detail: str = ""
    skipped: bool = False
    demand: str = ""


def find_kind(name: str) -> Kind:
    """Return the kind of the only component of this name.

    Raises:
        LookupError: there is none, or several kinds have one; the message says which.
    """
    known = registry().components
    kinds = [kind for kind in KINDS if (kind, name) in known]
    if not kinds:
        close = did_you_mean(name, {component for _, component in known})
        raise LookupError(f'no component is named "{name}".' + (f' Did you mean "{close}"?' if close else ""))
    if len(kinds) > 1:
        raise LookupError(f'"{name}" names several components; say which kind: {", ".join(kinds)}')
    return kinds[0]


def all_checks(name: str, kind: Kind | None = None, options: Mapping[str, Any] | None = None) -> list[Check]:
    """List the checks of a component.

    Raises:
        LookupError: there is no such component, or the kind must be named.
    """
    subject = Subject(kind or find_kind(name), name, options)
    # A slot for special tasks only makes sense in the methods that are made for it, which are checked.
    alone = registry().get(subject.kind, name).tasks and subject.kind in _SLOTS
    functions = checks_component.CHECKS if alone else tuple(checks_for(subject.kind))
    return [Check(function, subject) for function in functions]


def run_checks(
    name: str, kind: Kind | None = None, options: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Run all checks of a component.

    Args:
        name: of the component.
        kind: may be left out when only one kind has a component of this name.
        options: to try, as a TOML table; by default the component's trial options.

    Raises:
        LookupError: there is no such component, or the kind must be named.
    """
    return [_outcome(check) for check in all_checks(name, kind, options)]


def _outcome(check: Check) -> Outcome:
    try:
        check()
    except SkipTest as reason:
        return Outcome(check.name, True, str(reason), True, check.demand)
    except AssertionError as error:
        return Outcome(check.name, False, str(error), False, check.demand)
    except Exception as error:
        return Outcome(check.name, False, f"{type(error).__name__}: {error}", False, check.demand)
    return Outcome(check.name, True, demand=check.demand)


def parametrize_with_checks(
    name: str,
    kind: Kind | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Give a pytest function its argument `check`: all checks of a component, one test each.

    Args:
        name: of the component.
        kind: may be left out when only one kind has a component of this name.
        options: to try, as a TOML table; by default the component's trial options.
        expected_failures: reasons by name of check; such a test must fail (xfail, strict).

    Raises:
        LookupError: there is no such component or check, or the kind must be named.
    """
    import pytest

    checks, expected = all_checks(name, kind, options), dict(expected_failures or {})
    names = {check.name for check in checks}
    for wrong in expected.keys() - names:
        close = did_you_mean(wrong, names)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(sorted(names))}"
        raise LookupError(f'expected_failures: no check is named "{wrong}"; {hint}')
    parameters = [
        pytest.param(
            check,
            id=check.name,
            marks=[pytest.mark.xfail(reason=expected[check.name], strict=True)]
            if check.name in expected
            else [],
        )
        for check in checks
    ]
    return pytest.mark.parametrize("check", parameters)
