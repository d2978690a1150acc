"""Mixes of slots: those that make no sense are refused when they are read, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustplug.plugin.component import Component, MethodOptions, NoOptions, Use
from robustplug.plugin.host import registry
from robustplug.plugin.registry import Registry
from robustplug.plugin.traits import TRAITS, Traits, self_trained
from robustplug.recipe.clashes import clashes, threat_in
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe, recipe_from_mapping
from robustplug.recipe.shape import shape
from robustplug.recipe.toml.files import bundled_recipes
from tests.training.runs import offered


def read(method: dict[str, Any], task: str = "digits") -> None:
    recipe_from_mapping({"task": {"use": task}, "method": method})


PRODUCT = {
    "use": "erm",
    "vicinity": {"use": "gaussian"},
    "output_map": {"use": "product"},
    "loss": {"use": "log-likelihood"},
}
ALLOWED: list[dict[str, Any]] = [
    PRODUCT,
    {"use": "erm", "loss": {"use": "margin"}},
    {"use": "stability", "vicinity": {"use": "linf"}, "perturbation": {"use": "noise"}},
    {"use": "interpolated", "perturbation": {"use": "pgd", "target": "runner-up"}},
    {"use": "sprout", "label_map": {"inner": {"use": "smooth"}}},
    {"use": "free-at", "label_map": {"use": "dirichlet"}},
]
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("labels that read radii", {"use": "erm", "label_map": {"use": "cat"}}, "method.label_map", "radius"),
    (
        "a loss that reads radii",
        {"use": "pgd-at", "loss": {"use": "cat", "margin_weight": "radius-sum"}},
        "method.loss",
        "radius",
    ),
    (
        "nothing learnt from labels",
        {"use": "pgd-at", "label_map": {"use": "trades"}},
        "method.label_map",
        "true labels",
    ),
    (
        "no gradient at the origin",
        {"use": "trades", "perturbation": {"use": "pgd", "start": "zero"}},
        "method.label_map",
        "no gradient",
    ),
    ("two attacks", {"use": "free-at", "perturbation": {"use": "pgd"}}, "method", "leave out perturbation"),
    (
        "memory of mixtures",
        {"use": "cat", "vicinity": {"use": "mixup"}},
        "method",
        "mixture combines several",
    ),
    (
        "mixtures of mixtures",
        {"use": "erm", "vicinity": {"use": "mixup", "inner": {"use": "mixup"}}},
        "method.vicinity",
        "already mixes",
    ),
    (
        "mixtures mixed again",
        {"use": "interpolated", "vicinity": {"use": "mixup"}},
        "method",
        "mixes the samples itself",
    ),
    (
        "a product of mixtures",
        {
            "use": "erm",
            "vicinity": {"use": "mixup"},
            "output_map": {"use": "product"},
            "loss": {"use": "log-likelihood"},
        },
        "method.output_map",
        "single clean sample",
    ),
    ("log g in cross entropy", {**PRODUCT, "loss": {"use": "ce"}}, "method.loss", "normalise"),
    ("log g in the loss of CAT", {**PRODUCT, "loss": {"use": "cat"}}, "method.loss", "normalise"),
    ("log g in the loss of TRADES", {**PRODUCT, "loss": {"use": "trades"}}, "method.loss", "normalise"),
    ("a product with itself", {**PRODUCT, "vicinity": {"use": "linf"}}, "method.output_map", "clean one"),
    (
        "agreement with itself",
        {"use": "stability", "vicinity": {"use": "gaussian", "sigma": 0}},
        "method",
        "clean one",
    ),
    ("divergence from itself", {"use": "trades", "perturbation": {"use": "none"}}, "method", "from itself"),
    (
        "momentum from the origin",
        {"use": "trades", "perturbation": {"use": "mi-fgsm"}},
        "method.label_map",
        "no gradient",
    ),
    (
        "labels that no loss reads",
        {"use": "sprout", "loss": {"use": "margin"}},
        "method.label_map",
        "ignores the drawn label",
    ),
    (
        "draws of draws",
        {"use": "sprout", "label_map": {"inner": {"use": "dirichlet"}}},
        "method.label_map",
        "already draws labels",
    ),
    (
        "foreign attacks on mixtures",
        {"use": "pgd-at", "vicinity": {"use": "mixup"}, "perturbation": {"use": "autoattack"}},
        "method.perturbation",
        "one label for each",
    ),
    (
        "the class of a mixed view",
        {"use": "interpolated", "label_map": {"use": "bilateral"}},
        "method.label_map",
        "has several",
    ),
    (
        "a targeted attack on mixtures",
        {"use": "bilateral", "vicinity": {"use": "mixup"}, "label_map": {"use": "one-hot"}},
        "method.perturbation",
        "needs one label",
    ),
    ("logits as log g", {"use": "erm", "loss": {"use": "log-likelihood"}}, "method.loss", "log g"),
    (
        "the class of a mixture",
        {"use": "pgd-at", "vicinity": {"use": "mixup"}, "label_map": {"use": "bilateral"}},
        "method.label_map",
        "has several",
    ),
]


@pytest.mark.parametrize(
    ("method", "key", "reason"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_a_senseless_mix_is_refused_with_the_reason(method: dict[str, Any], key: str, reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(method)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert reason in problem.message


def rude(step: Any, view: Any, output: Any, target: Any) -> Any:
    """Stand for a loss; it is never called."""


NUMBERS = Component("of-numbers", lambda options: rude, summary="classes only", takes="numbers")
ROWS = Component("of-rows", lambda options: rude, summary="rows only", takes="rows")
IN_TRADES = {"use": "trades", "clean": {"use": "of-numbers"}, "divergence": {"use": "of-rows"}}


@pytest.mark.parametrize(
    ("method", "problem", "hint"),
    [
        ({"use": "pgd-at", "loss": {"use": "of-numbers"}}, None, None),
        (
            {"use": "trades", "loss": {"use": "of-numbers"}},
            'loss "of-numbers" takes class numbers, and label map "trades" makes rows of shares of them',
            'loss = { use = "trades", clean = "of-numbers" }',
        ),
        ({"use": "trades", "loss": IN_TRADES}, None, None),
        (
            {"use": "trades", "loss": {"use": "trades", "divergence": {"use": "of-numbers"}}},
            'loss "of-numbers" takes class numbers, and gets rows of shares here',
            None,
        ),
        (
            {"use": "trades", "loss": {"use": "trades", "divergence": {"use": "margin"}}},
            'label map "trades" cannot be mixed with loss "margin": the loss would ignore the predictions',
            None,
        ),
        (
            {"use": "erm", "loss": {"use": "of-numbers"}, "vicinity": {"use": "mixup"}},
            'takes class numbers, and vicinity "mixup" makes rows',
            None,
        ),
        (
            {"use": "erm", "loss": {"use": "of-numbers"}, "label_map": {"use": "smooth"}},
            'takes class numbers, and label map "smooth" makes rows',
            None,
        ),
        (
            {"use": "awp", "inner": {"use": "pgd-at", "loss": {"use": "of-rows"}}},
            'loss "of-rows" takes rows of shares, and label map "one-hot" returns class numbers',
            None,
        ),
        ({"use": "erm", "loss": {"use": "of-rows"}, "vicinity": {"use": "mixup"}}, None, None),
        ({"use": "erm", "loss": {"use": "of-rows"}, "label_map": {"use": "smooth"}}, None, None),
    ],
)
def test_a_loss_gets_the_targets_that_it_takes(
    method: dict[str, Any], problem: str | None, hint: str | None
) -> None:
    with offered("loss", NUMBERS, ROWS):
        if problem is None:
            read(method)
            return
        with pytest.raises(RecipeError) as caught:
            read(method)
    (found,) = caught.value.problems
    assert problem in found.message
    assert hint is None or hint in (found.hint or "")


def test_an_evaluation_has_class_numbers() -> None:
    for evaluate in ({"loss": {"use": "of-rows"}}, {"attack": [{"use": "pgd", "loss": {"use": "of-rows"}}]}):
        with offered("loss", ROWS), pytest.raises(RecipeError, match="labels are class numbers here"):
            recipe_from_mapping({"task": {"use": "digits"}, "method": {"use": "erm"}, "evaluate": evaluate})


def test_what_a_loss_takes_is_checked_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match='takes of x is "numbers", "rows" or "both"'):
        Component("x", "a:b", takes="columns")  # type: ignore[arg-type]


BY_ITSELF: dict[str, dict[str, Any]] = {
    "stays": {"use": "pgd-at"},
    "single-view": {"use": "free-at"},
    "from-labels": {"use": "erm", "label_map": {"use": "dirichlet"}},
    "cross-entropy": {"use": "erm", "loss": {"use": "margin"}},
    "own-outputs": PRODUCT,
}


@pytest.mark.parametrize("trait", BY_ITSELF)
def test_a_model_that_learns_by_itself_goes_with_no_method_that_needs_gradients(trait: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(
            {"task": {"use": "digits"}, "model": {"use": "lightgbm"}, "method": BY_ITSELF[trait]}
        )
    assert {problem.key for problem in caught.value.problems} == {"model"}
    reasons = [problem.message for problem in caught.value.problems]
    assert any(self_trained().needs[trait] in reason for reason in reasons)


@pytest.mark.parametrize(
    "method",
    [
        {"use": "erm", "vicinity": {"use": "gaussian"}},
        {"use": "erm", "vicinity": {"use": "mixup"}, "label_map": {"use": "smooth"}},
        {"use": "pgd-at", "perturbation": {"use": "none"}},
    ],
)
def test_a_model_that_learns_by_itself_takes_every_vicinity_and_label(method: dict[str, Any]) -> None:
    recipe_from_mapping({"task": {"use": "digits"}, "model": {"use": "lightgbm"}, "method": method})


@pytest.mark.parametrize("method", ALLOWED, ids=range(len(ALLOWED)))
def test_a_mix_that_makes_sense_is_read(method: dict[str, Any]) -> None:
    read(method)


def test_a_refused_mix_is_named_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    file.write_text('[task]\nuse = "digits"\n\n[method]\nuse = "erm"\n\n[method.label_map]\nuse = "cat"\n')
    with pytest.raises(RecipeError, match=r"mix\.toml:7: method\.label_map"):
        read_recipe(file)


@pytest.mark.parametrize("name", registry().names("method"))
def test_every_method_goes_with_its_own_slots(name: str) -> None:
    component = registry().get("method", name)
    form = shape(component.options)
    needed = {slot: component.trial[slot] for slot in form.slots if slot not in form.defaults}
    read({"use": name, **needed}, *component.tasks[:1])


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_every_bundled_recipe_can_be_read(name: str) -> None:
    read_recipe(name, starts=False)


@pytest.mark.parametrize("vicinity", ["gaussian", "mixup"])
def test_the_threat_is_that_of_the_innermost_vicinity(vicinity: str) -> None:
    use = resolve(
        Use(vicinity, {"inner": {"use": "gaussian", "inner": {"use": "l2", "eps": 0.7}}}), "vicinity"
    )
    assert threat_in(use, registry()) == resolve(Use("l2", {"eps": 0.7}), "vicinity")


def test_the_traits_of_installed_components_are_known() -> None:
    for kind, components in registry().by_kind().items():
        for component in components:
            traits = component.traits
            if not isinstance(traits, Traits):
                use = resolve(Use(component.name, dict(component.trial)), kind)
                traits = traits(use.options)
            assert traits.gives | traits.needs.keys() | traits.excludes.keys() <= TRAITS.keys()


def test_two_components_that_exclude_each_other_are_reported_once() -> None:
    both = Traits(frozenset({"loud"}), excludes={"loud": "one is enough"})
    known = Registry()
    known.add("method", Component("m", "m:M", MethodOptions), "test")
    for kind in ("vicinity", "perturbation", "label_map", "output_map", "loss"):
        traits = both if kind in ("label_map", "loss") else Traits()
        known.add(kind, Component("part", "m:P", NoOptions, traits=traits), "test")
    part = Use("part", NoOptions())
    method = Use("m", MethodOptions(part, part, part, part, part))
    (finding,) = clashes(method, known)
    assert finding.path == ("label_map",)
    assert finding.message == 'label map "part" cannot be mixed with loss "part": one is enough'


def test_a_component_for_other_tasks_is_refused_where_it_stands() -> None:
    method = {"use": "erm", "loss": {"use": "dialogue"}, "vicinity": {"use": "rules"}}
    recipe: dict[str, Any] = {
        "task": {"use": "digits"},
        "model": {"use": "negotiator"},
        "method": method,
        "validate": {"attack": {"use": "partner"}},
        "evaluate": {"attack": [{"use": "fgsm"}, {"use": "partner"}], "loss": {"use": "dialogue"}},
    }
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(recipe)
    assert {problem.key for problem in caught.value.problems} == {
        "model",
        "method.loss",
        "method.vicinity",
        "validate.attack",
        "evaluate.attack.1",
        "evaluate.loss",
    }
    for problem in caught.value.problems:
        assert 'not for the task "digits"' in problem.message
        assert problem.hint == 'it is for "scripted-negotiation", "negotiation"'
    recipe["evaluate"]["attack"] = [{"use": "partner"}]
    recipe_from_mapping({**recipe, "task": {"use": "scripted-negotiation"}})
