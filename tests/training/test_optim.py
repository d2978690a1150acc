from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.protocols import Rate
from robustplug.core.types import ParamGroup, Pass, Progress
from robustplug.errors import Refused
from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.runs.checkpoint import pack, unpack
from robustplug.training.optim import Optimizers, _check_alike, make_capturable, progress_at


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def optimizers(
    *groups: ParamGroup, name: str = "sgd", clip: float | None = None, **options: Any
) -> Optimizers:
    if name == "sgd":
        options = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, **options}
    chosen = resolve(Use(name, options), "optimizer")
    return Optimizers(groups, chosen, robustplug.build("schedule", "constant"), clip)


def set_gradients(value: float, *parameters: nn.Parameter) -> None:
    for each in parameters:
        each.grad = torch.full_like(each, value)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_descend_or_ascend_at_their_own_rate(name: str) -> None:
    down, up, fast = parameter(1.0), parameter(1.0), parameter(1.0)
    optim = optimizers(
        ParamGroup("model", [down]),
        ParamGroup("up", [up], maximize=True),
        ParamGroup("fast", [fast], lr=0.5),
        name=name,
        lr=0.1,
        weight_decay=0.0,
    )
    optim.set_rates(Progress())
    set_gradients(1.0, down, up, fast)
    optim.step({"model", "up", "fast"})
    assert [p.item() for p in (down, up, fast)] == pytest.approx([0.9, 1.1, 0.5], abs=1e-5)


def test_only_the_named_groups_move() -> None:
    one, two = parameter(1.0), parameter(1.0)
    optim = optimizers(ParamGroup("one", [one]), ParamGroup("two", [two]))
    set_gradients(1.0, one, two)
    optim.step({"two"})
    assert (one.item(), round(two.item(), 6)) == (1.0, 0.9)
    with pytest.raises(KeyError, match=r"\['three'\].*\['one', 'two'\]"):
        optim.step({"one", "three"})
    assert one.item() == 1.0


def test_a_parameter_in_two_groups_belongs_to_the_last() -> None:
    shared, own = parameter(1.0), parameter(1.0)
    optim = optimizers(ParamGroup("model", [own, shared]), ParamGroup("mask", [shared], maximize=True))
    set_gradients(1.0, shared, own)
    optim.step({"model"})
    assert shared.item() == 1.0
    optim.step({"mask"})
    assert [shared.item(), own.item()] == pytest.approx([1.1, 0.9])
    assert list(optim.parameters()) == [own, shared]


def test_groups_need_names_and_parameters() -> None:
    one = parameter(1.0)
    with pytest.raises(ValueError, match="different names, not model, model"):
        optimizers(ParamGroup("model", [one]), ParamGroup("model", [parameter(2.0)]))
    with pytest.raises(ValueError, match='"model" is empty'):
        optimizers(ParamGroup("model", [one]), ParamGroup("all", [one]))


def test_the_schedule_scales_every_rate_from_its_own_base() -> None:
    slow, fast = parameter(1.0), parameter(1.0)
    chosen = resolve(Use("sgd", {"lr": 0.1}), "optimizer")
    schedule = robustplug.build("schedule", "cosine")
    optim = Optimizers([ParamGroup("slow", [slow]), ParamGroup("fast", [fast], lr=2.0)], chosen, schedule)
    for epoch, factor in [
        (0.0, 1.0),
        (5.0, 0.5),
        (2.5, 0.5 * (1 + math.sqrt(0.5))),
        (7.5, 0.5 * (1 - math.sqrt(0.5))),
    ]:
        assert optim.set_rates(progress_at(epoch, 10, 4)) == pytest.approx(0.1 * factor)
        rates = [each.param_groups[0]["lr"] for each in optim.by_name.values()]
        assert rates == pytest.approx([0.1 * factor, 2.0 * factor])


def test_gradients_are_clipped_group_by_group() -> None:
    one, two = parameter(0.0, 0.0), parameter(0.0)
    optim = optimizers(ParamGroup("one", [one]), ParamGroup("two", [two]), clip=1.0, lr=1.0)
    one.grad, two.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.5])
    optim.step({"one", "two"})
    assert one.tolist() == pytest.approx([-0.6, -0.8], abs=1e-5)
    assert two.tolist() == pytest.approx([-0.5])


def test_a_group_may_bring_its_own_optimizer() -> None:
    one = parameter(1.0)
    optim = optimizers(ParamGroup("own", [one], lr=0.25, maximize=True, optimizer=torch.optim.Adagrad))
    (built,) = optim.by_name.values()
    assert isinstance(built, torch.optim.Adagrad)
    set_gradients(1.0, one)
    optim.step({"own"})
    assert one.item() == pytest.approx(1.25)


@pytest.mark.parametrize(("name", "options"), [("sgd", {"momentum": 0.9}), ("adamw", {"lr": 0.01})])
def test_the_state_goes_on_where_it_was(name: str, options: dict[str, Any]) -> None:
    def build(values: torch.Tensor) -> tuple[nn.Parameter, Optimizers]:
        each = nn.Parameter(values.detach().clone(memory_format=torch.preserve_format))
        return each, optimizers(ParamGroup("model", [each]), name=name, **options)

    start = torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    whole, optim = build(start)
    set_gradients(1.0, whole)
    optim.step({"model"})
    resumed, again = build(whole)
    tensors: dict[str, torch.Tensor] = {}
    body = pack(optim.state(), "optimizer", tensors)
    assert all(value.is_contiguous() for value in tensors.values())
    again.load_state(unpack(body, tensors))
    for each, state in ((whole, optim), (resumed, again)):
        set_gradients(0.5, each)
        state.step({"model"})
    assert torch.equal(whole, resumed)
    (moments,) = (value for value in again.by_name["model"].state.values())
    same = [value for value in moments.values() if getattr(value, "shape", None) == resumed.shape]
    assert same
    assert all(value.stride() == resumed.stride() for value in same)


def factor(name: str, epoch: float, length: int, /, **options: Any) -> float:
    value: float = robustplug.build("schedule", name, **options)(epoch, length)
    return value


def test_step_drops_at_its_milestones() -> None:
    options = {"milestones": [2, 3.5], "gamma": 0.5}
    found = [factor("step", epoch, 10, **options) for epoch in (0, 1.999, 2, 3.499, 3.5, 9)]
    assert found == [1, 1, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(RecipeError, match="ascend"):
        factor("step", 0, 1, milestones=[3, 2])


def test_cosine_falls_from_one_to_zero() -> None:
    found = [factor("cosine", epoch, 8) for epoch in (0, 2, 4, 6, 8, 9)]
    expected = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0, 0]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("peak", [0.5, 0.2])
def test_cyclic_is_a_triangle(peak: float) -> None:
    found = [factor("cyclic", share * 10, 10, peak=peak) for share in (0, peak / 2, peak, (1 + peak) / 2, 1)]
    assert found == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_warm_up_rises_and_is_multiplied_with_what_follows() -> None:
    cosine = [factor("cosine", epoch, 10) for epoch in (0, 1, 4, 7)]
    found = [factor("warm-up", epoch, 10, epochs=4) for epoch in (0, 1, 4, 7)]
    assert found == pytest.approx([0, 0.25 * cosine[1], cosine[2], cosine[3]])
    flat = [factor("warm-up", epoch, 10, epochs=2, then={"use": "constant"}) for epoch in (0, 1, 2, 9)]
    assert flat == [0, 0.5, 1, 1]
    assert factor("warm-up", 0, 10, epochs=0, then={"use": "constant"}) == 1


def test_constant_is_one() -> None:
    assert {factor("constant", epoch, 3) for epoch in (0, 1.5, 3)} == {1.0}


def test_groups_that_are_always_updated_join_the_passes_that_do_not_name_them() -> None:
    optim = optimizers(
        ParamGroup("model", [parameter(1.0)]),
        ParamGroup("beta", [parameter(1.0)], always=True),
        ParamGroup("own", [parameter(1.0)]),
    )
    model, own = Pass("a"), Pass("b", frozenset({"own"}))
    assert [pass_.update for pass_ in optim.complete([model, own])] == [{"model", "beta"}, {"own", "beta"}]
    named = [model, Pass("b", frozenset({"beta"}))]
    assert [pass_.update for pass_ in optim.complete(named)] == [{"model"}, {"beta"}]


def test_parameters_that_a_pass_does_not_update_are_frozen_for_it() -> None:
    one, two, still = parameter(1.0), parameter(1.0), parameter(1.0)
    still.requires_grad_(False)
    optim = optimizers(ParamGroup("one", [one, still]), ParamGroup("two", [two]))

    def boom() -> None:
        with optim.updating({"two"}):
            assert (one.requires_grad, still.requires_grad, two.requires_grad) == (False, False, True)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        boom()
    assert (one.requires_grad, still.requires_grad, two.requires_grad) == (True, False, True)


def test_passes_may_reach_different_parameters_of_a_group() -> None:
    first, later = parameter(1.0), parameter(1.0)
    optim = optimizers(ParamGroup("model", [first, later]), momentum=0.9, nesterov=True)
    set_gradients(1.0, first)
    optim.step({"model"})
    optim.zero_grad()
    set_gradients(1.0, first, later)
    optim.step({"model"})
    # lr · (g + momentum · buffer): 1.9 in a first step, 2.71 in a second.
    assert float(later.detach()) == pytest.approx(1 - 0.19)
    assert float(first.detach()) == pytest.approx(1 - 0.19 - 0.271)


class Triangle:
    """A schedule of a plugin that counts updates and moves the momentum against the rate."""

    def update(self, progress: Progress, settings: Mapping[str, Any]) -> Rate:
        height = 1 - abs(2 * progress.update / progress.updates - 1)
        return Rate(height, settings.get("momentum", 0.5) - 0.1 * height)


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.9), ("adamw", 0.5)])
def test_a_schedule_of_updates_sets_rate_and_momentum(name: str, momentum: float) -> None:
    one = parameter(1.0)
    chosen = resolve(Use(name, {"lr": 0.2}), "optimizer")
    optim = Optimizers([ParamGroup("model", [one])], chosen, Triangle())
    (entry,) = optim.by_name["model"].param_groups
    for update, height in ((0, 0.0), (2, 0.5), (4, 1.0), (6, 0.5)):
        assert optim.set_rates(Progress(0, 1, update, 8, update, 8)) == pytest.approx(0.2 * height)
        found = entry["betas"][0] if "betas" in entry else entry["momentum"]
        assert found == pytest.approx(momentum - 0.1 * height)
    assert entry.get("betas", (0, 0.999))[1] == 0.999


def test_a_momentum_that_the_optimizer_lacks_is_refused() -> None:
    chosen = resolve(Use("torch:Adadelta"), "optimizer")
    optim = Optimizers([ParamGroup("model", [parameter(1.0)])], chosen, Triangle())
    with pytest.raises(Refused, match="sets the momentum, but the optimizer has none"):
        optim.set_rates(Progress(0, 1, 1, 8, 1, 8))


def test_the_moment_of_a_run_advances_with_every_update() -> None:
    moments = [
        Progress(epoch, 2, batch, 3, (epoch * 3 + batch) * 2 + place, 12).moment
        for epoch in range(2)
        for batch in range(3)
        for place in range(2)
    ]
    assert moments == [
        epoch + (batch + place / 2) / 3 for epoch in (0, 1) for batch in (0, 1, 2) for place in (0, 1)
    ]
    assert [progress_at(at, 2, 4).update for at in (0, 0.24, 0.25, 1.99, 2, 9)] == [0, 0, 1, 7, 7, 7]


@pytest.mark.parametrize("forged", [0.5, "x", [1], True])
def test_a_forged_state_of_one_parameter_is_refused(forged: object) -> None:
    whole = {0: {"step": 3, "buffer": torch.ones(2)}, 1: {"step": 3, "buffer": torch.ones(3)}}
    _check_alike(whole.values())
    with pytest.raises(ValueError, match="buffer"):
        _check_alike({**whole, 1: {"step": 3, "buffer": forged}}.values())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_rates_in_tensors_keep_their_place_and_give_the_same_steps(name: str) -> None:
    results = []
    for tensors in (False, True):
        one, two = parameter(1.0, 2.0), parameter(3.0)
        groups = ParamGroup("one", [one]), ParamGroup("two", [two], lr=0.3)
        optim = optimizers(*groups, name=name, lr=0.1)
        optim.schedule = robustplug.build("schedule", "cosine")
        if tensors:
            optim.rates_on(torch.device("cpu"), torch.float64)
        rates = [each.param_groups[0]["lr"] for each in optim.by_name.values()]
        assert [isinstance(rate, torch.Tensor) for rate in rates] == [tensors] * 2
        for epoch in range(3):
            first = optim.set_rates(Progress(epoch, 3))
            assert type(first) is float
            set_gradients(0.7 + epoch, one, two)
            optim.step({"one", "two"})
        if tensors:
            now = [each.param_groups[0]["lr"] for each in optim.by_name.values()]
            assert all(rate is other for rate, other in zip(rates, now, strict=True))
            assert rates[1].item() == pytest.approx(0.3 * 0.25)
            assert "lr" not in dict(optim.numbers())
        results.append(torch.cat([one, two]).detach())
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        (lambda params: torch.optim.SGD(params, lr=0.1, foreach=True), {"fused": True, "foreach": None}),
        (lambda params: torch.optim.SGD(params, lr=0.1, fused=True), {"fused": True}),
        (lambda params: torch.optim.AdamW(params, fused=True), {"fused": True, "capturable": True}),
        (lambda params: torch.optim.NAdam(params), {}),
        (lambda params: torch.optim.Adagrad(params), {}),
    ],
)
def test_what_torch_offers_for_graphs_is_turned_on(made: Any, changed: dict[str, Any]) -> None:
    optim = made([parameter(1.0)])
    (entry,) = optim.param_groups
    before = dict(entry)
    make_capturable(optim, entry)
    assert {key: value for key, value in entry.items() if key != "params"} == {
        key: value for key, value in (before | changed).items() if key != "params"
    }


@pytest.mark.parametrize(
    ("name", "schedule", "held"),
    [
        ("sgd", "constant", True),
        ("adamw", "cosine", True),
        ("sgd", "torch:OneCycleLR", False),
        ("torch:NAdam", "cosine", False),
    ],
)
def test_graphs_hold_the_steps_of_optimizers_that_read_all_that_changes_from_tensors(
    name: str, schedule: str, held: bool
) -> None:
    optim = optimizers(ParamGroup("one", [parameter(1.0)]), name=name)
    optim.schedule = robustplug.build("schedule", schedule)
    assert not optim.in_graphs
    optim.rates_on(torch.device("cpu"), torch.float64)
    optim.set_rates(Progress(0, 3, 1, 4, 1, 12))
    assert optim.in_graphs is held


def test_numbers_that_a_schedule_changes_are_told_apart() -> None:
    optim = optimizers(ParamGroup("one", [parameter(1.0)]), name="sgd", lr=0.1)
    optim.rates_on(torch.device("cpu"), torch.float64)
    before = optim.numbers()
    optim.set_rates(Progress(1, 3))
    assert optim.numbers() == before
    optim.by_name["one"].param_groups[0]["momentum"] = 0.5
    assert optim.numbers() != before
    assert hash(optim.numbers()) != hash(before)
