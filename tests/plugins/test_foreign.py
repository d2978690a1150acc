"""The attacks of torchattacks and ART, by class name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import robustplug
from robustplug.core.types import Batch, View
from robustplug.errors import Refused
from robustplug.recipe.errors import RecipeError

from ..builtin.attacks import attacked, digits, right, step_of, trained_model

pytest.importorskip("torchattacks")
pytest.importorskip("art")

EPS = {"linf": 0.1, "l2": 0.6}
SMALL: dict[str, Any] = {
    **dict.fromkeys(("steps", "max_iter", "max_iterations", "nb_steps", "n_steps", "num_iter_set"), 10),
    **dict.fromkeys(("restarts", "binary_search_steps", "nb_iter", "nb_random_init"), 1),
    "n_queries": 20,
    "nb_sample": 4,
    "popsize": 4,
    "max_eval": 20,
    "init_eval": 5,
    "init_size": 5,
    "num_trial": 2,
    "query_limit": 50,
    "nb_parallel": 4,
}
SLOW = {"AutoAttack"}
TINY: dict[str, Any] = {"max_iter": 30}


@pytest.fixture(scope="module")
def model() -> Any:
    return trained_model()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return digits(6)


def ball(norm: str) -> Any:
    return robustplug.build("vicinity", norm, eps=EPS[norm])


def classes(library: str) -> dict[str, type[Any]]:
    if library == "art":
        from robustplug_art.attack import attack_classes
    else:
        from robustplug_torchattacks.attack import attack_classes
    found: dict[str, type[Any]] = attack_classes()
    return found


def small(attack: type[Any]) -> dict[str, Any]:
    known = inspect.signature(attack.__init__).parameters
    return {name: value for name, value in SMALL.items() if name in known}


def every(library: str) -> Iterator[Any]:
    for name in sorted(classes(library)):
        slow = library == "art" or name in SLOW
        yield pytest.param(library, name, id=f"{library}:{name}", marks=pytest.mark.slow if slow else [])


@pytest.mark.table(10)
@pytest.mark.parametrize(("library", "name"), [*every("torchattacks"), *every("art")])
def test_every_attack_gives_legal_results_or_says_why_not(
    library: str, name: str, model: nn.Module, batch: Batch
) -> None:
    before = state(model)
    for norm in EPS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attacked(
                    library, model, batch, ball(norm), name=name, **small(classes(library)[name])
                )
        except RecipeError as error:
            text = str(error)
            assert "cannot be used here, since it" in text or "is missing" in text
            return
        except Refused as error:
            text = str(error)
            assert name in text
        else:
            assert ball(norm).contains(found, batch.x, torch.full((len(batch),), EPS[norm])).all()
    assert state(model) == before


def state(model: nn.Module) -> Any:
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        torch.get_rng_state().tolist(),
    )


REPRESENTATIVE = [
    ("art", "FastGradientMethod", {}),
    ("art", "ProjectedGradientDescent", {"max_iter": 10}),
    ("art", "AutoProjectedGradientDescent", {"max_iter": 5}),
    ("art", "DeepFool", {"max_iter": 5}),
    ("art", "SquareAttack", {"max_iter": 20}),
    ("art", "HopSkipJump", {"max_iter": 1, "max_eval": 20, "init_eval": 5, "init_size": 5}),
    ("torchattacks", "PGD", {"steps": 10}),
    ("torchattacks", "APGD", {"steps": 10}),
    ("torchattacks", "FAB", {"steps": 5}),
]


@pytest.mark.parametrize(("library", "name", "options"), REPRESENTATIVE, ids=lambda value: str(value)[:30])
def test_the_model_is_put_back_and_results_are_legal(
    library: str, name: str, options: dict[str, Any], model: Any, batch: Batch
) -> None:
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = state(model)
    with torch.no_grad():
        found = attacked(library, model, batch, ball("linf"), name=name, **options)
    assert state(model) == before
    assert bool((model[0].weight.grad == 1).all())
    model[0].weight.grad = None
    model.eval()
    assert ball("linf").contains(found, batch.x, torch.full((len(batch),), EPS["linf"])).all()


@pytest.mark.parametrize(("library", "name"), [("art", "FastGradientMethod"), ("torchattacks", "FGSM")])
def test_the_single_step_is_our_own(library: str, name: str, model: nn.Module, batch: Batch) -> None:
    # Where a sample is fooled already ours stays, while evaluating; in training all take the step.
    ours = attacked("fgsm", model, batch, ball("linf"), evaluating=False)
    theirs = attacked(library, model, batch, ball("linf"), evaluating=False, name=name)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("library", "name", "options"),
    [
        ("torchattacks", "PGD", {"steps": 10, "alpha": 0.02, "random_start": False}),
        ("art", "ProjectedGradientDescent", {"max_iter": 10, "eps_step": 0.02}),
    ],
)
def test_pgd_without_a_random_start_is_our_own(
    library: str, name: str, options: dict[str, Any], model: nn.Module, batch: Batch
) -> None:
    ours = attacked(
        "pgd", model, batch, ball("linf"), evaluating=False, steps=10, step_size=0.02, start="zero"
    )
    theirs = attacked(library, model, batch, ball("linf"), evaluating=False, name=name, **options)
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.99
    assert torch.equal(right(model, ours, batch), right(model, theirs, batch))


@pytest.mark.parametrize(("library", "name"), [("art", "BasicIterativeMethod"), ("torchattacks", "PGD")])
def test_each_sample_has_its_own_radius(library: str, name: str, model: nn.Module, batch: Batch) -> None:
    radius = torch.tensor([0.0, 0.1, 0.05, 0.1, 0.0, 0.05])
    found = attacked(library, model, batch, ball("linf"), radius, name=name, **small(classes(library)[name]))
    reach = (found - batch.x).abs().flatten(1).amax(1)
    assert torch.equal(found[[0, 4]], batch.x[[0, 4]])
    assert bool((reach <= radius + 1e-6).all())
    assert bool((reach[[1, 3]] > 0.051).all())


@pytest.mark.parametrize("library", ["art", "torchattacks"])
def test_the_same_seed_gives_the_same_noise(library: str, model: nn.Module, batch: Batch) -> None:
    name, options = ("SquareAttack", TINY) if library == "art" else ("PGD", {})
    one, two, other = (
        attacked(library, model, batch, ball("linf"), seed=seed, evaluating=False, name=name, **options)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("library", ["art", "torchattacks"])
def test_a_failure_inside_leaves_the_model_as_it_was(
    library: str, model: nn.Module, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "FastGradientMethod" if library == "art" else "FGSM"
    attack = classes(library)[name]

    def fail(self: Any, *arguments: Any, **options: Any) -> Any:
        model.train()
        raise RuntimeError("the library is broken")

    monkeypatch.setattr(attack, "generate" if library == "art" else "forward", fail)
    before = state(model)
    with pytest.raises(Refused, match="the library is broken"):
        attacked(library, model, batch, ball("linf"), name=name)
    assert state(model) == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ProjectedGradientDescent", {"targeted": True}),
        ("AutoAttack", {"targeted": True}),
        ("UniversalPerturbation", {"attacker": "pgd", "attacker_params": {"targeted": True}}),
    ],
)
def test_a_target_that_nobody_gives_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="a row counts any wrong class"):
        robustplug.build("perturbation", "art", name=name, **options)
    untargeted = {
        key: False if key == "targeted" else {} if key == "attacker_params" else value
        for key, value in options.items()
    }
    robustplug.build("perturbation", "art", name=name, **untargeted)


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), [("art", "SaliencyMapMethod"), ("torchattacks", "JSMA")])
def test_attacks_that_need_a_target_walk_towards_a_wrong_class(library: str, name: str, batch: Batch) -> None:
    for classes in (10, 5):
        model = trained_model(classes)
        few = Batch(batch.x[:4], batch.y[:4] % classes, batch.index[:4])
        whole = robustplug.build("vicinity", "linf", eps=1.0)
        found = attacked(library, model, few, whole, name=name, theta=0.5, gamma=0.3)
        assert int(right(model, found, few).sum()) < int(right(model, few.x, few).sum())


@pytest.mark.parametrize("library", ["art", "torchattacks"])
def test_arguments_are_checked_when_the_recipe_is_read(library: str) -> None:
    name = "ProjectedGradientDescent" if library == "art" else "PGD"
    with pytest.raises(RecipeError) as caught:
        robustplug.build("perturbation", library, name=name, eps=0.1, stepz=3, verbose_=1)
    text = str(caught.value)
    assert "eps is the radius of the vicinity: leave it out" in text
    assert "stepz is not an argument of" in text
    assert len(caught.value.problems) == 3
    with pytest.raises(RecipeError, match="did you mean"):
        robustplug.build("perturbation", library, name=name[:-1] + "X")


@pytest.mark.parametrize(
    "name", ["DecisionTreeAttack", "ImperceptibleASR", "DPatch", "AdversarialPatchTensorFlowV2"]
)
def test_attacks_for_other_data_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be used here, since it"):
        robustplug.build("perturbation", "art", name=name)


@pytest.mark.parametrize("name", ["APGDT", "AutoAttack"])
def test_two_classes_are_refused_where_the_attack_needs_more(name: str) -> None:
    whole = digits(6)
    two = Batch(whole.x, whole.y % 2, whole.index)
    step = step_of(trained_model(classes=2), two)
    task: Any = step.task
    task.info = type(task.info)(**{**vars(task.info), "classes": 2})
    with pytest.raises(Refused, match="needs at least 4 classes"):
        robustplug.build("perturbation", "torchattacks", name=name)(step, View.of(two, "adv"), ball("linf"))


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("art", "pip install adversarial-robustness-toolbox"),
        ("torchattacks", "pip install --no-deps torchattacks"),
    ],
)
def test_without_the_library_the_message_says_how_to_get_it(
    library: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeError, match=command):
        robustplug.build("perturbation", library, name="FGSM")
    assert library in robustplug.plugin.host.registry().names("perturbation")
