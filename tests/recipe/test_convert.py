from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from robustplug.plugin.component import Use
from robustplug.recipe.convert import resolve
from robustplug.recipe.errors import Problem, RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.options import Recipe, ValidateOptions
from robustplug.recipe.write import use_to_mapping

from .fakes import TEXT, Blend, Cat, Ce, Pgd, Sgd, Torchvision, fake_registry

REGISTRY = fake_registry()


def read(changes: Mapping[str, Any] | None = None) -> Recipe:
    base = {"task": {"use": "digits"}, "method": {"use": "cat", "eps_max": 0.1}}
    return recipe_from_mapping({**base, **(changes or {})}, registry=REGISTRY)


def problems(changes: Mapping[str, Any]) -> dict[str, Problem]:
    with pytest.raises(RecipeError) as caught:
        read(changes)
    return {problem.key: problem for problem in caught.value.problems}


def cat(**options: Any) -> dict[str, Any]:
    return {"method": {"use": "cat", "eps_max": 0.1, **options}}


def pgd(**options: Any) -> dict[str, Any]:
    return cat(perturbation=options)


def test_the_example_is_resolved() -> None:
    recipe = recipe_from_mapping(tomllib.loads(TEXT), registry=REGISTRY)
    assert (recipe.name, recipe.seed, recipe.task.name) == ("cat-digits", 0, "digits")
    method = recipe.method.options
    assert isinstance(method, Cat)
    assert method.eps_max == 8 / 255
    assert method.perturbation == Use("pgd", Pgd(steps=10, step_size=2 / 255, keep="best"))
    assert method.parts == (Use("ce", Ce()),)
    assert recipe.optimizer == Use("sgd", Sgd(lr=0.05))
    assert recipe.validate.attack == Use("pgd", Pgd(steps=10, keep="best"))
    assert recipe.evaluate.attack == (Use("pgd", Pgd(steps=50, restarts=5)),)
    assert recipe.evaluate.loss == Use("ce", Ce())
    assert recipe.evaluate.vicinity is None


def test_defaults_and_the_absent_model() -> None:
    recipe = read()
    assert recipe.model is None
    assert (recipe.name, recipe.schema, recipe.train.precision) == ("unnamed", 1, "auto")
    assert type(recipe.optimizer.options.lr) is float


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, Pgd(steps=7, step_size=2 / 255, keep="best")),
        ({"steps": 2}, Pgd(steps=2, step_size=2 / 255, keep="best")),
        ({"use": "pgd", "steps": 2}, Pgd(steps=2, step_size=2 / 255, keep="best")),
        ({"use": "blend"}, Blend(inner=Use("pgd", Pgd(steps=3, loss=Use("ce", Ce(smoothing=0.25)))))),
        (
            {"use": "blend", "inner": {"loss": {"weights": {"a": 1}}}},
            Blend(inner=Use("pgd", Pgd(steps=3, loss=Use("ce", Ce(0.25, {"a": 1.0}))))),
        ),
        ({"use": "blend", "inner": {"use": "blend"}}, None),
    ],
)
def test_a_table_is_merged_on_the_slots_default_of_the_same_name(table: Any, expected: Any) -> None:
    value = read(cat(perturbation=table)).method.options.perturbation.options
    if expected is None:
        expected = Blend(inner=read(cat(perturbation={"use": "blend"})).method.options.perturbation)
    assert value == expected


def test_slots_of_many_start_from_the_components_own_defaults() -> None:
    options = read(cat(parts=[{"use": "ce", "smoothing": 0.5}, {"use": "ce"}])).method.options
    assert options.parts == (Use("ce", Ce(smoothing=0.5)), Use("ce", Ce()))
    assert read(cat(parts=[])).method.options.parts == ()


def test_a_name_after_a_colon_is_the_option_name() -> None:
    model = read({"model": {"use": "torchvision:resnet50", "weights": True}}).model
    assert model == Use("torchvision", Torchvision("resnet50", weights=True))
    assert read({"model": {"use": "torchvision", "name": "a"}}).model == Use("torchvision", Torchvision("a"))


def test_a_variant_must_be_known_and_given_once() -> None:
    both = problems({"model": {"use": "torchvision:a", "name": "a"}})
    assert "also given" in both["model.name"].message
    none = problems({"model": {"use": "small-cnn:a"}})
    assert none["model.use"].hint == 'write use = "small-cnn"'


@pytest.mark.parametrize(
    ("changes", "key", "message", "hint"),
    [
        (
            pgd(steps="10"),
            "method.perturbation.steps",
            "must be a whole number, not a string: write 10 without quotes",
            None,
        ),
        (pgd(steps=True), "method.perturbation.steps", "must be a whole number, not true", None),
        (pgd(steps=10.0), "method.perturbation.steps", "must be a whole number, not 10.0: write 10", None),
        (pgd(steps=1.5), "method.perturbation.steps", "must be a whole number, not 1.5", None),
        (pgd(steps=[1]), "method.perturbation.steps", "must be a whole number, not an array", None),
        (pgd(steps=0), "method.perturbation.steps", "must be at least 1, not 0", None),
        (pgd(step_size=0), "method.perturbation.step_size", "must be above 0, not 0", None),
        (pgd(step_size=True), "method.perturbation.step_size", "must be a number, not true", None),
        (
            pgd(keep="bset"),
            "method.perturbation.keep",
            'must be "last" or "best", not "bset"',
            'did you mean "best"?',
        ),
        (pgd(shape=[1, "a"]), "method.perturbation.shape.1", 'must be a number, not "a"', None),
        (cat(eps_max=-0.03), "method.eps_max", "must be at least 0, not -0.03", None),
        (cat(eps_max="8/0"), "method.eps_max", '"8/0" divides by zero', None),
        (
            cat(eps_max="__import__('os')"),
            "method.eps_max",
            '"__import__(\'os\')" is not a number; write 0.03 or a fraction such as "8/255"',
            None,
        ),
        (cat(eps_max=float("inf")), "method.eps_max", "must be a finite number, not inf", None),
        (cat(eps_max=float("nan")), "method.eps_max", "must be a finite number, not nan", None),
        (
            {"name": datetime.date(2024, 1, 31)},
            "name",
            "must not be a date or a time",
            'for a string, write "2024-01-31" in quotes',
        ),
        ({"name": 12}, "name", 'must be a string, not 12: write "12"', None),
        ({"seed": -1}, "seed", "must be at least 0, not -1", None),
        ({"seed": None}, "seed", "must not be None: recipes have no such value", "leave the key out"),
        (
            {"train": {"channels_last": "Auto"}},
            "train.channels_last",
            'must be "auto" or true or false, not "Auto"',
            'did you mean "auto"?',
        ),
        (
            {"train": {"precision": "bf16"}},
            "train.precision",
            'must be one of "auto", "float32", "bfloat16", not "bf16"',
            'did you mean "bfloat16"?',
        ),
        (
            {"train": {"stop_on_collapse": "yes"}},
            "train.stop_on_collapse",
            'must be true or false, not "yes"',
            None,
        ),
        (
            {"train": {"stop_on_collapse": "true"}},
            "train.stop_on_collapse",
            "must be true or false, not a string: write true without quotes",
            None,
        ),
        ({"train": 3}, "train", "must be a table, not 3", "write [train]"),
        (
            {"evaluate": {"loss": {"use": "ce", "weights": {"a": "x"}}}},
            "evaluate.loss.weights.a",
            'must be a number, not "x"',
            None,
        ),
        (
            {"evaluate": {"loss": {"use": 3}}},
            "evaluate.loss.use",
            "must be the name of a loss, a string, not 3",
            None,
        ),
        (pgd(stps=3), "method.perturbation.stps", '"pgd" has no such option', 'did you mean "steps"?'),
        (pgd(los={}), "method.perturbation.los", '"pgd" has no such option', 'did you mean "loss"?'),
        (
            pgd(use="fgsm", zzz=3),
            "method.perturbation.zzz",
            '"fgsm" has no such option',
            "known: none",
        ),
        ({"evaluation": {}}, "evaluation", "there is no such key here", 'did you mean "evaluate"?'),
    ],
)
def test_one_problem_one_sentence(changes: Any, key: str, message: str, hint: str | None) -> None:
    found = problems(changes)
    assert list(found) == [key]
    assert (found[key].message, found[key].hint) == (message, hint)


@pytest.mark.parametrize(
    ("changes", "key", "says", "hint"),
    [
        ({"method": "cat"}, "method", 'must be a table, not "cat"', '[method] with use = "cat" below it'),
        ({"method": "cat"}, "method", "table", "--set method.use=cat"),
        (cat(parts=["ce"]), "method.parts.0", "must be a table", '[[method.parts]] with use = "ce" below it'),
        (cat(parts={"use": "ce"}), "method.parts", "must be an array of tables", "write [[method.parts]]"),
        (cat(parts=[{"smoothing": 0.1}]), "method.parts.0", "names no loss", "installed: ce"),
        ({"model": {}}, "model", "names no model", "installed: small-cnn, torchvision"),
        (pgd(use="pdg"), "method.perturbation.use", 'Did you mean "pgd"? Installed: blend, fgsm', ""),
        (pgd(use="twice"), "method.perturbation.use", "offered by fakes and by others", ""),
        ({"schema": 2}, "schema", "schema 2 is not known", ""),
        ({"schema": True}, "schema", "must be a whole number", ""),
        ({"name": "a/b"}, "name", "letters, digits", ""),
        ({"name": ".."}, "name", "letters, digits", ""),
        ({"name": "ü"}, "name", "letters, digits", ""),
        ({"method": {"use": "broken"}}, "method", "report it to fakes", ""),
        ({"method": {"use": "cat"}}, "method.eps_max", "is missing", ""),
        (
            cat(perturbation={"use": "blend", "inner": "pgd"}),
            "method.perturbation.inner",
            "must be a table",
            "inner",
        ),
        (
            {"evaluate": {"attack": [{"use": "pgd", "loss": "ce"}]}},
            "evaluate.attack.0.loss",
            "must be a table",
            'write loss = { use = "ce" }',
        ),
        ({"validate": {"split": "test"}}, "validate.split", "on the validation split only", ""),
        (cat(eps_min=0.2), "method.eps_min", "is above eps_max", ""),
        (cat(eps_max=9), "method", "nine is not our number", ""),
    ],
)
def test_problems_say_how_to_mend_them(changes: Any, key: str, says: str, hint: str) -> None:
    found = problems(changes)
    assert list(found) == [key]
    assert says in found[key].message
    assert hint in (found[key].hint or "")


def test_missing_tables_are_named_with_what_is_installed() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({}, registry=REGISTRY)
    assert [problem.key for problem in caught.value.problems] == ["task", "method"]
    assert 'write [task] with use = "…" below it\ninstalled: digits' in str(caught.value.problems[0].hint)


def test_a_misspelt_key_is_not_also_called_missing() -> None:
    assert list(problems({"method": {"use": "cat", "eps_mx": 0.1}})) == ["method.eps_mx"]
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({"task": {"use": "digits"}, "methd": {"use": "erm"}}, registry=REGISTRY)
    assert [problem.key for problem in caught.value.problems] == ["methd"]


def test_all_problems_are_found_at_once() -> None:
    found = problems(
        {
            "seed": "0",
            "task": {"use": "digts"},
            "method": {"use": "cat", "eps_max": -1, "eps": 1, "perturbation": {"steps": 0, "keep": 3}},
            "train": {"epochs": 0, "lr": 1},
            "validate": {"split": "test", "attack": {"steps": -1}},
            "evaluate": {"attack": [{"use": "pgd"}, {"use": "pgd", "steps": 0}]},
        }
    )
    assert set(found) == {
        "seed",
        "task.use",
        "method.eps_max",
        "method.eps",
        "method.perturbation.steps",
        "method.perturbation.keep",
        "train.epochs",
        "train.lr",
        "validate.split",
        "validate.attack.steps",
        "evaluate.attack.1.steps",
    }


def test_a_plugins_own_default_is_checked_too() -> None:
    found = problems({"method": {"use": "slanted"}})
    assert set(found) == {"method.perturbation.stepz", "method.perturbation.steps"}
    assert found["method.perturbation.steps"].hint == "this is a default, not a value of the recipe"


def test_components_that_contain_themselves_end() -> None:
    (problem,) = problems(pgd(use="loop")).values()
    assert "nested too deeply" in problem.message


def test_resolve_fills_in_defaults_and_is_idempotent() -> None:
    once = resolve(Use("blend", {"share": "1/2"}), "perturbation", REGISTRY)
    assert once == Use("blend", Blend(0.5, Use("pgd", Pgd(steps=3, loss=Use("ce", Ce(0.25))))))
    assert resolve(once, "perturbation", REGISTRY) == once
    assert resolve(Use("pgd", {"step_size": None}), "perturbation", REGISTRY).options.step_size is None
    assert resolve(Use("torchvision:vgg"), "model", REGISTRY).options.name == "vgg"


@pytest.mark.parametrize(
    ("inner", "steps", "smoothing"),
    [
        (None, 4, 0.75),
        ({"steps": 6}, 6, 0.75),
        ({"use": "pgd", "loss": {"weights": {}}}, 4, 0.75),
        ({"loss": {"use": "ce", "smoothing": 0.5}}, 4, 0.5),
    ],
)
def test_a_default_may_be_written_as_nested_tables(inner: Any, steps: int, smoothing: float) -> None:
    table = {"perturbation": {"inner": inner}} if inner is not None else {}
    result = read({"method": {"use": "nested", **table}}).method.options.perturbation.options.inner
    assert result == Use("pgd", Pgd(steps=steps, loss=Use("ce", Ce(smoothing))))


def test_resolve_takes_options_as_a_recipe_would_write_them() -> None:
    options = {"eps_max": "1/2", "perturbation": {"steps": 2}, "parts": [{"use": "ce"}]}
    result = resolve(Use("cat", options), "method", REGISTRY).options
    assert result == Cat(0.5, perturbation=Use("pgd", Pgd(2, 2 / 255, keep="best")), parts=(Use("ce", Ce()),))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"perturbation": "pgd"}, "perturbation"),
        ({"perturbation": 3}, "perturbation"),
        ({"perturbation": None}, "perturbation"),
        ({"parts": "ce"}, "parts"),
        ({"parts": None}, "parts"),
        ({"parts": Use("ce")}, "parts"),
        ({"parts": (Use("ce"), {"use": "ce"})}, None),
    ],
)
def test_resolve_survives_any_value_of_a_slot(options: Any, key: str | None) -> None:
    reference = Use("cat", {"eps_max": 1, **options})
    if key is None:
        resolve(reference, "method", REGISTRY)
        return
    with pytest.raises(RecipeError) as caught:
        resolve(reference, "method", REGISTRY)
    assert [problem.key for problem in caught.value.problems] == [key]


def test_resolve_lists_every_problem() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(Use("pgd", {"steps": 0, "stepsize": 1, "shape": object()}), "perturbation", REGISTRY)
    assert [problem.key for problem in caught.value.problems] == ["stepsize", ""]
    with pytest.raises(RecipeError) as caught:
        resolve(Use("pgd", {"steps": 0, "stepsize": 1}), "perturbation", REGISTRY)
    assert [problem.key for problem in caught.value.problems] == ["stepsize", "steps"]
    assert caught.value.source == "perturbation pgd"


def test_python_callers_are_held_to_the_same_split_and_name() -> None:
    with pytest.raises(ValueError, match="validation split only"):
        ValidateOptions(split="test")
    with pytest.raises(ValueError, match="letters, digits"):
        Recipe(name="a/b", task=Use("digits"), method=Use("erm"))
    with pytest.raises(ValueError, match="schema 2"):
        Recipe(schema=2, task=Use("digits"), method=Use("erm"))


def test_the_mapping_is_left_as_it_was() -> None:
    mapping = {"task": {"use": "digits"}, "method": {"use": "erm"}}
    recipe = recipe_from_mapping(mapping, ["train.epochs=3", "task.use=digits"], registry=REGISTRY)
    assert recipe.train.epochs == 3
    assert mapping == {"task": {"use": "digits"}, "method": {"use": "erm"}}


# --- options that take every other key


def passed_on(**options: Any) -> Use:
    return resolve(Use("foreign", options), "perturbation", REGISTRY)


def test_other_keys_are_passed_on_and_written_back() -> None:
    found = passed_on(name="PGD", steps=3, norms=[1, 2])
    assert found.options.arguments == {"steps": 3, "norms": [1, 2]}
    table = use_to_mapping(found)
    assert table == {"use": "foreign", "name": "PGD", "steps": 3, "norms": [1, 2]}
    assert (
        resolve(Use("foreign", {key: table[key] for key in table if key != "use"}), "perturbation", REGISTRY)
        == found
    )
    assert resolve(found, "perturbation", REGISTRY) == found


def test_other_keys_are_checked_by_the_component_each_on_its_line() -> None:
    with pytest.raises(RecipeError) as caught:
        passed_on(name="PGD", bad=1, worse=2, fine=3)
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [
        ("bad", "bad is not taken"),
        ("worse", "worse is not taken"),
    ]
    with pytest.raises(RecipeError, match="date"):
        passed_on(name="PGD", when=datetime.date(2026, 1, 1))


def test_the_name_may_stand_after_a_colon() -> None:
    found = resolve(Use("foreign:FGSM", {"steps": 1}), "perturbation", REGISTRY)
    assert (found.options.name, found.options.arguments) == ("FGSM", {"steps": 1})
