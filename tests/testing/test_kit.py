from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from robustplug.api import Component, MethodOptions, NoOptions, Real
from robustplug.plugin.component import KINDS, Kind
from robustplug.testing import checks_for, parametrize_with_checks, run_checks
from robustplug.testing.kit import all_checks, find_kind

from . import broken

Register = Callable[[Kind, Component], None]


@dataclass(frozen=True)
class ErmOptions(MethodOptions):
    """Options of a method without a perturbation."""


BROKEN: list[tuple[Kind, Any, set[str]]] = [
    ("perturbation", broken.Attack, set()),
    ("perturbation", broken.LeavesTheBall, {"views_stay_in_the_vicinity", "evaluated_views_are_legal"}),
    ("perturbation", broken.LeavesTheRange, {"views_stay_in_the_vicinity", "evaluated_views_are_legal"}),
    (
        "perturbation",
        broken.IgnoresRadii,
        {
            "views_stay_in_the_vicinity",
            "evaluated_views_are_legal",
            "radius_zero_changes_nothing",
        },
    ),
    ("perturbation", broken.MovesAtRadiusZero, {"radius_zero_changes_nothing"}),
    ("perturbation", broken.DrawsFromTorch, {"global_rng_is_untouched"}),
    ("perturbation", broken.DrawsFromNumpy, {"global_rng_is_untouched"}),
    ("perturbation", broken.DrawsFromPython, {"global_rng_is_untouched"}),
    ("perturbation", broken.HasItsOwnGenerator, {"same_seed_gives_the_same_bits", "resume_is_bitwise"}),
    ("perturbation", broken.RemembersInAnAttribute, {"resume_is_bitwise"}),
    ("perturbation", broken.StaysInEval, {"model_is_restored_after_views"}),
    ("perturbation", broken.CallsTrain, {"model_is_restored_after_views"}),
    ("perturbation", broken.AttacksInTrainMode, {"model_is_restored_after_views"}),
    ("perturbation", broken.LeavesGradients, {"model_is_restored_after_views"}),
    ("perturbation", broken.RestoresOnlyOnSuccess, {"model_is_restored_after_an_error"}),
    ("perturbation", broken.SwallowsErrors, {"model_is_restored_after_an_error"}),
    ("perturbation", broken.LiesAboutCost, {"cost_is_as_declared", "cost_counts_the_target"}),
    ("perturbation", broken.ForgetsTheTarget, {"cost_counts_the_target"}),
    ("perturbation", broken.BypassesTheStep, {"calls_go_through_the_step"}),
    ("perturbation", broken.WaitsForTheDevice, {"updates_need_no_host"}),
    ("perturbation", broken.Descends, {"ascends_a_linear_model"}),
    ("perturbation", broken.StaysAttached, {"returns_the_view_with_a_new_x"}),
    ("perturbation", broken.Relabels, {"returns_the_view_with_a_new_x", "radius_zero_changes_nothing"}),
    (
        "perturbation",
        broken.WorksInPlace,
        {"inputs_are_left_alone", "returns_the_view_with_a_new_x", "ascends_a_linear_model"},
    ),
    ("perturbation", broken.SqueezesRows, {"batches_of_any_size_work"}),
    ("method", broken.Remembers, set()),
    ("method", broken.DoublesExport, {"export_agrees_with_g"}),
    ("method", broken.ExportChangesTheModel, {"export_agrees_with_g"}),
    ("method", broken.ExportsOnlyItsModel, {"export_agrees_with_g"}),
    ("method", broken.DeclaresAnIdleGroup, {"gradients_reach_the_declared_groups"}),
    ("method", broken.MovesUndeclaredWeights, {"gradients_reach_the_declared_groups"}),
    ("method", broken.MovesBackwards, {"mechanism_is_measured"}),
    ("method", broken.WritesByPosition, {"memory_is_keyed_by_index"}),
    ("method", broken.ReadsByPosition, {"memory_is_keyed_by_index"}),
    ("method", broken.RemembersOutsideTheState, {"resume_is_bitwise"}),
    ("method", broken.GrowsItsState, {"state_round_trips", "resume_is_bitwise"}),
    ("method", broken.DeclaresTooLittle, {"cost_is_as_declared"}),
    ("method", broken.LiesAboutItsLoss, {"loss_cost_is_as_declared"}),
    ("method", broken.MovesDownhill, {"views_do_not_lower_the_objective"}),
    ("vicinity", broken.ProjectsOutOfRange, {"project_gives_legal_points", "random_points_are_legal"}),
    ("vicinity", broken.AcceptsNaN, {"contains_refuses_illegal_points"}),
    ("vicinity", broken.StepsTooFar, {"steepest_is_the_best_direction"}),
    ("vicinity", broken.DrawsTheSamePoint, {"random_points_are_legal"}),
    ("vicinity", broken.SamplesInPlace, {"samples_are_a_batch", "inputs_are_left_alone"}),
    ("label_map", broken.SumsToTwo, {"targets_are_distributions"}),
    ("output_map", broken.CentresTheBatch, {"outputs_are_per_sample"}),
    ("loss", broken.Reduces, {"loss_is_per_sample"}),
    ("loss", broken.TakesNumbersAlone, {"loss_is_per_sample", "loss_is_finite"}),
    ("loss", broken.NormalisesByTheBatch, {"loss_is_per_sample"}),
    ("loss", broken.Overflows, {"loss_is_finite"}),
    ("task", broken.Toy, set()),
    (
        "task",
        broken.IndexIsPosition,
        {
            "epochs_cover_every_sample_once",
            "feeds_skip_and_share_out",
            "batches_depend_on_the_feed_alone",
        },
    ),
    ("task", broken.NeverReshuffles, {"batches_depend_on_the_feed_alone"}),
    ("task", broken.IgnoresSkip, {"feeds_skip_and_share_out"}),
    ("task", broken.ScoresFloats, {"batches_fit_the_info"}),
    ("model", broken.ForgetsMode, {"model_gives_logits"}),
    ("model", broken.ForgetsToRegister, {"model_can_train"}),
    ("optimizer", broken.only_descends, {"optimizer_descends_and_ascends"}),
    ("schedule", broken.Negative, {"schedule_is_a_factor"}),
    ("schedule", broken.Counts, {"schedule_remembers_nothing"}),
    ("schedule", broken.CountsUpdates, set()),
    ("schedule", broken.RemembersUpdates, {"schedule_remembers_nothing"}),
    ("schedule", broken.MomentumOfOne, {"schedule_is_a_factor"}),
    ("augmentation", broken.Shifted, set()),
    (
        "augmentation",
        broken.ChangesInPlace,
        {"augmentation_keeps_the_form", "augmentation_depends_on_the_seeds_alone"},
    ),
    ("augmentation", broken.Brightens, {"augmentation_keeps_the_form"}),
    (
        "augmentation",
        broken.Crops,
        {"augmentation_keeps_the_form"},
    ),
    ("augmentation", broken.DoesNothing, {"augmentation_keeps_the_form"}),
    ("augmentation", broken.DrawsForTheBatch, {"augmentation_depends_on_the_seeds_alone"}),
    ("augmentation", broken.DrawsGlobally, {"augmentation_depends_on_the_seeds_alone"}),
]
OPTIONS: dict[Kind, type[Any]] = {"method": ErmOptions, "vicinity": broken.Ball}


@pytest.mark.table(18)
@pytest.mark.parametrize(
    ("kind", "factory", "failing"), BROKEN, ids=[factory.__name__ for _, factory, _ in BROKEN]
)
def test_each_fault_fails_exactly_its_checks(
    kind: Kind, factory: Any, failing: set[str], robustplug_register: Register
) -> None:
    where = f"{factory.__module__}:{factory.__name__}"
    robustplug_register(kind, Component("broken", where, OPTIONS.get(kind, NoOptions), "broken"))

    outcomes = run_checks("broken", kind)

    assert {o.check: o.detail for o in outcomes if not o.passed}.keys() == failing
    assert all(o.detail for o in outcomes if not o.passed or o.skipped)


@pytest.mark.parametrize(
    ("factory", "takes"), [(broken.TakesNumbersAlone, "numbers"), (broken.TakesRowsAlone, "rows")]
)
def test_a_loss_that_says_what_it_takes_gets_that_alone(
    factory: Any, takes: Any, robustplug_register: Register
) -> None:
    where = f"{factory.__module__}:{factory.__name__}"
    robustplug_register("loss", Component("choosy", where, summary="choosy", takes=takes))
    quick = {"loss_is_per_sample", "loss_is_finite", "gradients_reach_the_declared_groups"}
    for check in all_checks("choosy", "loss"):
        if check.name in quick:
            check()
    robustplug_register("loss", Component("greedy", where, summary="says nothing"))
    with pytest.raises(AssertionError, match=f'declare its component with takes="{takes}"'):
        next(check for check in all_checks("greedy", "loss") if check.name == "loss_is_per_sample")()


@dataclass(frozen=True)
class WrongDefault:
    """Options whose default its own type refuses."""

    size: Real = "big"  # type: ignore[assignment]


@dataclass(frozen=True)
class Forgetful:
    """Options that do not come back: they rewrite what they are given."""

    size: Real = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.size + 1)


@pytest.mark.parametrize(
    ("component", "failing"),
    [
        (Component("x", "robustplug.builtin.maps:Identity", summary=""), {"summary_is_one_line"}),
        (Component("x", "robustplug.builtin.maps:Identity", summary="one\ntwo"), {"summary_is_one_line"}),
        (Component("x", "robustplug.builtin.maps:Identity", Forgetful, "x"), {"options_round_trip"}),
    ],
)
def test_each_wrong_declaration_fails_exactly_its_check(
    component: Component, failing: set[str], robustplug_register: Register
) -> None:
    robustplug_register("output_map", component)
    assert {o.check for o in run_checks("x", "output_map") if not o.passed} == failing


@pytest.mark.parametrize(
    ("component", "check"),
    [
        (Component("x", "robustplug.nowhere:Thing", summary="x"), "factory_loads"),
        (Component("x", "robustplug.builtin.maps:Identity", WrongDefault, "x"), "options_resolve"),
        (Component("x", "robustplug.builtin.maps:Identity", summary="x", trial={"y": 1}), "options_resolve"),
    ],
)
def test_what_cannot_be_built_fails_with_the_reason(
    component: Component, check: str, robustplug_register: Register
) -> None:
    robustplug_register("output_map", component)
    failed = {o.check: o.detail for o in run_checks("x", "output_map") if not o.passed}
    assert check in failed
    assert "Error" in failed[check]


def test_a_task_without_its_data_is_skipped(robustplug_register: Register) -> None:
    component = Component("gone", f"{broken.__name__}:missing_data", summary="gone")
    robustplug_register("task", component)
    outcomes = {o.check: o for o in run_checks("gone", "task")}
    skipped = outcomes["epochs_cover_every_sample_once"]
    assert skipped.passed
    assert skipped.skipped
    assert "data/toy.bin" in skipped.detail


def test_a_lone_slot_is_tried_in_a_method_that_gives_it_a_radius() -> None:
    assert all(o.passed for o in run_checks("cat", "label_map"))


VARIANTS: list[tuple[Kind, str, dict[str, Any]]] = [
    ("perturbation", "pgd", {"steps": 2, "restarts": 2, "keep": "best"}),
    ("perturbation", "pgd", {"steps": 2, "target": "runner-up"}),
    ("perturbation", "pgd", {"steps": 2, "target": "random", "start": "zero"}),
    ("perturbation", "pgd", {"steps": 2, "start": "normal", "loss": {"use": "margin"}, "batchnorm": "train"}),
    ("perturbation", "fgsm", {"start": "uniform", "step_ratio": 1.25, "batchnorm": "train"}),
    ("perturbation", "noise", {"scale": 0.5}),
    ("vicinity", "l2", {"eps": 2.0}),
    ("loss", "margin", {"kappa": 1.0}),
    ("method", "pgd-at", {"vicinity": {"use": "l2", "eps": 0.5}, "perturbation": {"steps": 2}}),
    ("method", "free-at", {"replays": 3, "vicinity": {"use": "l2", "eps": 0.5}}),
    ("method", "trades", {"perturbation": {"use": "fgsm", "start": "uniform"}}),
    ("method", "cat", {"perturbation": {"steps": 1}, "variant": "official-v1"}),
    ("method", "cat", {"perturbation": {"steps": 1}, "variant": "official-v2"}),
    ("method", "cat", {"perturbation": {"steps": 1}, "adaptive": False}),
    ("method", "cat", {"perturbation": {"steps": 1}, "loss": {"use": "ce"}, "label_map": {"use": "smooth"}}),
]


@pytest.mark.table(4)
@pytest.mark.parametrize(("kind", "name", "options"), VARIANTS, ids=[str(case[1:]) for case in VARIANTS])
def test_other_options_than_the_trial_pass_as_well(kind: Kind, name: str, options: dict[str, Any]) -> None:
    outcomes = run_checks(name, kind, options)
    assert {o.check: o.detail for o in outcomes if not o.passed} == {}


@parametrize_with_checks("fgsm")
def test_the_decorator_gives_one_test_each(check: Callable[[], None]) -> None:
    check()


def test_expected_failures_are_strict_and_checked() -> None:
    mark = parametrize_with_checks("fgsm", expected_failures={"cost_is_as_declared": "known"}).mark
    name, parameters = mark.args
    assert name == "check"
    assert [parameter.id for parameter in parameters] == [
        check.__name__ for check in checks_for("perturbation")
    ]
    (marked,) = [parameter for parameter in parameters if parameter.marks]
    assert marked.id == "cost_is_as_declared"
    assert marked.marks[0].name == "xfail"
    assert marked.marks[0].kwargs == {"reason": "known", "strict": True}
    with pytest.raises(LookupError, match='did you mean "cost_is_as_declared"'):
        parametrize_with_checks("fgsm", expected_failures={"cost_is_declared": "typo"})


def test_the_kind_is_found_only_where_the_name_has_one() -> None:
    assert find_kind("fgsm") == "perturbation"
    with pytest.raises(LookupError, match="label_map, loss, method"):
        find_kind("trades")
    with pytest.raises(LookupError, match='Did you mean "fgsm"'):
        run_checks("fgms")
    with pytest.raises(LookupError, match="no loss is named"):
        run_checks("fgsm", "loss")


def test_every_check_says_what_it_demands() -> None:
    for kind in KINDS:
        checks = list(checks_for(kind))
        assert len({check.__name__ for check in checks}) == len(checks)
        assert all((check.__doc__ or "").strip().split("\n")[0].endswith(".") for check in checks)


def test_registered_components_are_gone_after_the_test(robustplug_register: Register) -> None:
    assert "broken" not in {o.name for o in _names("perturbation")}
    robustplug_register("perturbation", Component("broken", "nowhere:Thing"))
    assert "broken" in {o.name for o in _names("perturbation")}


def _names(kind: Kind) -> list[Component]:
    from robustplug.plugin.host import registry

    return list(registry().by_kind()[kind])


def test_pytest_loads_the_plugin_without_torch() -> None:
    code = (
        "import sys, robustplug.testing.pytest_plugin; "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
