"""What is legal around a sample: vicinities around others, and the attacks that cannot keep to a set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.api import BoundedVicinity, Component, Step, Traits, Use, Vicinity, use
from robustplug.evaluation.rows import suite_attacks
from robustplug.plugin.component import Kind
from robustplug.plugin.host import registry
from robustplug.recipe.clashes import threat_in
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_suite, recipe_from_mapping
from robustplug.subjects.assemble import threat_of
from robustplug.testing import checks_slots
from robustplug.testing.bench import Subject

Register = Callable[[Kind, Component], None]


@dataclass(frozen=True)
class AroundOptions:
    """Options of a vicinity around another one."""

    inner: Annotated[Use, "vicinity"] = use("linf", eps=0.3)


class Corner:
    """Only the upper left half of the values may change, within the vicinity inside."""

    norm: float | None = None

    def __init__(self, options: AroundOptions, *, inner: Vicinity) -> None:
        self.inner, self.eps = inner, inner.eps

    def within(self, low: Any, high: Any) -> None:
        assert isinstance(self.inner, BoundedVicinity)
        self.inner.within(low, high)

    def free(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], device=x.device) < (x.shape[-1] + 1) // 2

    def sample(self, step: Step, batch: Any) -> Any:
        return self.inner.sample(step, batch)

    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        return self.inner.project(torch.where(self.free(x), x, origin), origin, radius)

    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        still = ((x == origin) | self.free(x)).flatten(1).all(1)
        return still & self.inner.contains(x, origin, radius)

    def steepest(self, gradient: Tensor) -> Tensor:
        return self.inner.steepest(gradient * self.free(gradient))

    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        return self.project(self.inner.random_point(origin, radius, rng), origin, radius)


class Boastful(Corner):
    """Says that it is a whole L∞ ball."""

    norm: float | None = torch.inf


class Idle(Corner):
    """Restricts nothing."""

    def free(self, x: Tensor) -> Tensor:
        return torch.ones(x.shape[-1], dtype=torch.bool, device=x.device)


def component(name: str, factory: Any, *gives: str) -> Component:
    traits = Traits(gives=frozenset({"plain", *gives}))
    return Component(name, factory, AroundOptions, "half of the values change", traits=traits)


CORNER = component("corner", Corner, "restricts", "coordinates")


@pytest.fixture
def corner(robustplug_register: Register) -> None:
    robustplug_register("vicinity", CORNER)


def recipe(**tables: Any) -> Any:
    return recipe_from_mapping({"task": {"use": "digits"}, "method": {"use": "pgd-at"}, **tables})


def named(name: str, **options: Any) -> Use:
    return resolve(Use(name, options), "vicinity")


def test_what_restricts_is_the_threat_and_what_draws_is_not(corner: None) -> None:
    inside = {"use": "corner", "inner": {"use": "l2"}}
    assert threat_in(named("gaussian", inner=inside), registry()) == resolve(
        Use("corner", {"inner": {"use": "l2"}}), "vicinity"
    )
    outside = named("corner", inner={"use": "gaussian"})
    assert threat_in(outside, registry()) == outside


def test_an_explicit_threat_is_never_unwrapped(corner: None) -> None:
    inside = {"use": "corner", "inner": {"use": "l2", "eps": 0.5}}
    for table in ({"use": "corner"}, inside, {"use": "gaussian", "sigma": 0}):
        assert threat_of(recipe(evaluate={"vicinity": table})).name == table["use"]
    trained = recipe(method={"use": "pgd-at", "vicinity": {"use": "corner"}})
    assert threat_of(trained).name == "corner"
    suite = read_suite(
        {"name": "rows", "row": [{"vicinity": {"use": "corner"}}]}, {"use": "linf", "eps": 0.3}
    )
    (row,) = suite.row
    assert row.vicinity is not None
    assert row.vicinity.name == "corner"


DRAWS_OR_RESTRICTS = checks_slots.says_whether_it_draws_or_restricts


def test_the_kit_checks_what_a_vicinity_says(robustplug_register: Register) -> None:
    robustplug_register("vicinity", CORNER)
    DRAWS_OR_RESTRICTS(Subject("vicinity", "corner"))
    robustplug_register("vicinity", component("lies", Corner, "draws-around"))
    with pytest.raises(AssertionError, match="changes what is legal"):
        DRAWS_OR_RESTRICTS(Subject("vicinity", "lies"))
    robustplug_register("vicinity", component("idle", Idle, "restricts"))
    with pytest.raises(AssertionError, match="allows all that is legal"):
        DRAWS_OR_RESTRICTS(Subject("vicinity", "idle"))
    robustplug_register("vicinity", component("silent", Boastful))
    with pytest.raises(AssertionError, match="draws-around"):
        DRAWS_OR_RESTRICTS(Subject("vicinity", "silent"))
    with pytest.raises(AssertionError, match="norm = None"):
        checks_slots.a_norm_ball_is_whole(Subject("vicinity", "silent"))
    robustplug_register("vicinity", component("whole", Corner, "restricts", "norm-ball"))
    with pytest.raises(AssertionError, match="its norm is None"):
        checks_slots.a_norm_ball_is_whole(Subject("vicinity", "whole"))


@pytest.mark.parametrize("attack", ["square", "cw-l2", "deepfool", "autoattack", "sign-opt", "ensemble"])
def test_attacks_that_know_balls_alone_are_refused_when_the_recipe_is_read(attack: str, corner: None) -> None:
    inner = {"attacks": [{"use": "pgd"}, {"use": "square"}]} if attack == "ensemble" else {}
    table = {"use": attack, **inner}
    for tables in (
        {"evaluate": {"vicinity": {"use": "corner"}, "attack": [{"use": "pgd"}, table]}},
        {"method": {"use": "pgd-at", "vicinity": {"use": "corner"}}, "validate": {"attack": table}},
        {"method": {"use": "pgd-at", "vicinity": {"use": "corner"}, "perturbation": table}},
    ):
        with pytest.raises(RecipeError, match='cannot keep to vicinity "corner"'):
            recipe(**tables)
        recipe(**{**tables, "evaluate": {}, "method": {"use": "pgd-at"}})
    recipe(method={"use": "pgd-at", "vicinity": {"use": "gaussian"}}, evaluate={"attack": [table]})


@pytest.mark.parametrize("name", ["rotate", "gaussian", "mixup"])
def test_what_draws_samples_is_no_threat_model(name: str) -> None:
    said = rf'"{name}" draws samples(.|\n)*name what is legal around them instead, "linf"'
    with pytest.raises(RecipeError, match=said):
        recipe(evaluate={"vicinity": {"use": name}})
    with pytest.raises(RecipeError, match=said):
        read_suite({"name": "s", "row": [{"vicinity": {"use": name}}]}, {"use": "linf"})


@pytest.mark.parametrize("inner", [{"use": "gaussian"}, {"use": "corner", "inner": {"use": "mixup"}}])
def test_of_several_vicinities_none_draws(inner: dict[str, Any], corner: None) -> None:
    table = {"use": "union", "parts": [{"use": "linf"}, inner]}
    for tables in ({"evaluate": {"vicinity": table}}, {"method": {"use": "pgd-at", "vicinity": table}}):
        with pytest.raises(RecipeError, match=r"vicinity\.parts(.|\n)*of several vicinities none may"):
            recipe(**tables)


def test_a_row_of_a_suite_is_skipped_with_the_reason(corner: None) -> None:
    threat = named("corner")
    suite = read_suite({"name": "s", "row": [{"attack": {"use": "square"}}]}, {"use": "corner"})
    (row,) = suite_attacks(suite, threat, (), robustplug.build("task", "digits").info)
    assert "cannot keep to" in (row.refused or "")


def test_a_scale_reaches_the_radius_inside(corner: None) -> None:
    suite = read_suite({"name": "s", "row": [{"attack": {"use": "pgd"}, "scale": 2}]}, {"use": "corner"})
    (row,) = suite_attacks(suite, named("corner"), (), robustplug.build("task", "digits").info)
    assert row.vicinity is not None
    assert row.vicinity.eps == pytest.approx(0.6)


def test_a_scaled_number_of_pixels_is_a_whole_one() -> None:
    info = robustplug.build("task", "digits").info
    for vicinity, scale, eps in (("l0", 0.75, 7), ("patch", 1.3, 6)):
        threat = named(vicinity)
        suite = read_suite(
            {"name": "s", "row": [{"attack": {"use": "pgd"}, "scale": scale}]}, {"use": vicinity}
        )
        (row,) = suite_attacks(suite, threat, (), info)
        assert row.vicinity is not None
        assert row.vicinity.eps == row.threat["eps"] == eps
    rows: list[dict[str, Any]] = [{"attack": {"use": "pgd"}}, {"attack": {"use": "pgd"}, "scale": 0.1}]
    suite = read_suite({"name": "s", "row": rows}, {"use": "patch"})
    whole, none = suite_attacks(suite, named("patch"), (), info)
    assert not whole.refused
    assert none.label == "pgd · scale=0.1"
    assert none.refused == "leaves nothing of eps = 5 of patch: whole numbers are rounded down"
    rows[1]["vicinity"] = {"use": "patch", "eps": 4}
    with pytest.raises(RecipeError, match="leaves nothing of eps = 4"):
        suite_attacks(read_suite({"name": "s", "row": rows}, {"use": "patch"}), named("patch"), (), info)


def test_a_trained_patch_is_evaluated_in_the_patch(corner: None, tmp_path: Path) -> None:
    class Half(nn.Module):
        """Right unless the right half of the image changes: the corner cannot reach it."""

        def forward(self, x: Tensor) -> Tensor:
            right = (x[..., x.shape[-1] // 2 :] - 0.5).flatten(1).sum(1)
            return torch.stack([-right, right], 1)

    x = torch.full((8, 1, 4, 4), 0.5)
    x[::2, ..., 2:], x[1::2, ..., 2:] = 0.4, 0.6
    data = (x, torch.arange(8) % 2)
    attacks = [{"use": "pgd", "steps": 5}, {"use": "apgd-ce", "steps": 5}]
    for name, broken in (("corner", 0), ("linf", 8)):
        threat = {
            "use": name,
            **({"inner": {"use": "linf", "eps": 0.3}} if name == "corner" else {"eps": 0.3}),
        }
        result = robustplug.evaluate(
            model=Half(), data=data, threat=threat, attacks=attacks, out=str(tmp_path / name)
        )
        assert result.threat["use"] == name
        assert [row.broken for row in result.attacks[1:]] == [broken, 0]


@pytest.mark.parametrize(
    ("lines", "overrides", "place", "said"),
    [
        (
            ['use = "mask"', "box = [4, 4, 5, 2]", 'inner = { use = "linf" }'],
            [],
            "r.toml:7",
            "reaches beyond images",
        ),
        (
            ['use = "linf"', "eps = 8"],
            [],
            "r.toml:9: evaluate.vicinity.eps",
            'every input is legal; 8/255 may be meant: eps = "8/255"',
        ),
        (
            ['use = "l1"'],
            ["evaluate.vicinity.eps=65"],
            "--set evaluate.vicinity.eps=65",
            "every input is legal",
        ),
        (
            ['use = "mask"', "frame = 2", 'inner = { use = "l2", eps = 9 }'],
            [],
            "r.toml:10: evaluate.vicinity.inner.eps",
            "every input is legal",
        ),
        (['use = "scaled"', "scales = [1, 2]"], [], "r.toml:7", "do not fit inputs"),
        (
            ['use = "scaled"', "scales = [0.5]", "eps = 3"],
            [],
            "r.toml:10: evaluate.vicinity.eps",
            "in multiples of the scales, 2: it bounds nothing",
        ),
        (['use = "l0"', "eps = 65"], [], "r.toml:9: evaluate.vicinity.eps", "more than all 64 pixels"),
        (['use = "patch"', "eps = 9"], [], "r.toml:9: evaluate.vicinity.eps", "the images, 8 pixels"),
        (
            ['use = "table"', "eps = 40", "feature = [{ columns = [0], most = 0.5, cost = 8 }]"],
            [],
            "r.toml:9: evaluate.vicinity.eps",
            "all changes that the rules allow, 4: it bounds nothing",
        ),
        (
            ['use = "union"', 'parts = [{ use = "linf", eps = 0.1 }, { use = "l0", eps = 99 }]'],
            [],
            "evaluate.vicinity.parts.1.eps",
            "more than all 64 pixels",
        ),
    ],
)
def test_sets_in_wrong_units_or_shapes_are_found_before_the_training_with_their_line(
    tmp_path: Path, lines: list[str], overrides: list[str], place: str, said: str
) -> None:
    file = tmp_path / "r.toml"
    start = ["[task]", 'use = "digits"', "", "[method]", 'use = "erm"', "", "[evaluate.vicinity]"]
    file.write_text("\n".join([*start, *lines]), encoding="utf-8")
    with pytest.raises(RecipeError, match=said) as caught:
        robustplug.train(file, out=tmp_path / "run", overrides=overrides)
    assert place in str(caught.value)
    assert "evaluate.vicinity" in str(caught.value)
    assert not (tmp_path / "run").exists()
