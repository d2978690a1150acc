"""Run the checks, from pytest or directly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from ..errors import Refused
from ..plugin.component import KINDS, Kind
from ..plugin.host import registry
from ..plugin.registry import did_you_mean
from . import (
    checks_component,
    checks_launchers,
    checks_measuring,
    checks_parts,
    checks_rates,
    checks_slots,
    checks_training,
    checks_views,
)
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
    "optimizer": checks_rates.OPTIMIZER_CHECKS,
    "schedule": checks_rates.SCHEDULE_CHECKS,
    "augmentation": checks_rates.AUGMENTATION_CHECKS,
    "measurement": checks_measuring.MEASUREMENT_CHECKS,
    "wrapper": checks_measuring.WRAPPER_CHECKS,
    "launcher": checks_launchers.LAUNCHER_CHECKS,
}


_SLOTS = ("vicinity", "perturbation", "label_map", "output_map", "loss")


def checks_for(kind: Kind) -> Iterator[CheckFunction]:
    """Yield the checks of a kind: functions of a Subject that raise AssertionError, or SkipTest.

    A check has the name of its function; the first line of its docstring states the requirement.
    """
    yield from checks_component.CHECKS
    yield from _BY_KIND[kind]


@dataclass(frozen=True)
class Check:
    """One check of one component; call it to run it.

    Attributes:
        function: check function from `checks_for`.
        subject: component to check.
    """

    function: CheckFunction
    subject: Subject

    @property
    def name(self) -> str:
        """Return the check's name."""
        return self.function.__name__

    @property
    def demand(self) -> str:
        """Return the requirement on the component in one line."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            AssertionError: the check fails; the message contains the reason. An error of the component
                propagates.
            unittest.SkipTest: the check does not apply, or the component refuses its settings; pytest
                reports it as skipped.
        """
        try:
            self.function(self.subject)
        except Refused as reason:
            raise SkipTest(f"refused: {reason}") from None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check.

    Attributes:
        check: name of the check.
        passed: whether the check did not fail.
        detail: reason for the failure or the skip; "" otherwise.
        skipped: whether the check does not apply to this component, or its data is missing.
        demand: requirement on the component.
    """

    check: str
    passed: bool
    detail: str = ""
    skipped: bool = False
    demand: str = ""


def find_kind(name: str) -> Kind:
    """Return the kind of the only component with this name.

    Raises:
        LookupError: no component has this name, or components of several kinds do; the message lists them.
    """
    known = registry().components
    kinds = [kind for kind in KINDS if (kind, name) in known]
    if not kinds:
        close = did_you_mean(name, {component for _, component in known})
        raise LookupError(f'no component is named "{name}".' + (f' Did you mean "{close}"?' if close else ""))
    if len(kinds) > 1:
        raise LookupError(f'several components are named "{name}"; give the kind: {", ".join(kinds)}')
    return kinds[0]


def all_checks(name: str, kind: Kind | None = None, options: Mapping[str, Any] | None = None) -> list[Check]:
    """List the checks of a component.

    Raises:
        LookupError: no such component exists, or the kind must be given.
    """
    subject = Subject(kind or find_kind(name), name, options)
    # A slot for special tasks works only in the methods made for it, which are checked themselves.
    alone = subject.tasks and subject.kind in _SLOTS
    functions = checks_component.CHECKS if alone else tuple(checks_for(subject.kind))
    return [Check(function, subject) for function in functions]


def run_checks(
    name: str, kind: Kind | None = None, options: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Run all checks of a component; an error that several of them meet is told once.

    Args:
        name: name of the component.
        kind: kind of the component; may be left out if only one kind has a component of this name.
        options: options to try, as a TOML table; by default the component's trial options.

    Raises:
        LookupError: no such component exists, or the kind must be given.
    """
    outcomes: list[Outcome] = []
    first: dict[str, str] = {}
    for check in all_checks(name, kind, options):
        outcome = _outcome(check)
        if not outcome.passed and (same := first.setdefault(outcome.detail, outcome.check)) != outcome.check:
            outcome = replace(outcome, detail=f"the same error as in {same}")
        outcomes.append(outcome)
    return outcomes


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
    """Parametrise a pytest function over `check`: all checks of a component, one test each.

    Args:
        name: name of the component.
        kind: kind of the component; may be left out if only one kind has a component of this name.
        options: options to try, as a TOML table; by default the component's trial options.
        expected_failures: reasons by check name; these checks must fail (xfail, strict).

    Raises:
        LookupError: no such component or check exists, or the kind must be given.
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
