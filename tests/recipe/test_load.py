from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import robustplug
from robustplug.plugin.component import Use
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import read_recipe
from robustplug.recipe.study import read_study
from robustplug.recipe.toml.files import bundled_recipes, find_recipe

from .fakes import TEXT, Pgd, fake_registry

REGISTRY = fake_registry()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my cat.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two bundled recipes, seen from another folder."""
    folder = tmp_path / "checkout" / "recipes"
    (folder / "suites").mkdir(parents=True)
    (folder / "cat.toml").write_text(TEXT)
    (folder / "trades-digits.toml").write_text(TEXT)
    (folder / "suites" / "strong.toml").write_text("")
    monkeypatch.setattr("robustplug.recipe.toml.files.PACKAGE", folder.parent / "robustplug")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def failure(path: Path, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides, REGISTRY)
    return caught.value


def test_a_file_is_read_and_named_after_its_stem(recipe: Path) -> None:
    assert read_recipe(recipe, registry=REGISTRY).name == "cat-digits"
    recipe.write_text(TEXT.replace('name = "cat-digits"\n', ""))
    assert read_recipe(str(recipe), registry=REGISTRY).name == "my-cat"
    recipe.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_recipe(recipe, registry=REGISTRY).seed == 0


def test_problems_come_with_lines_in_the_order_of_the_file(recipe: Path) -> None:
    text = TEXT.replace("steps = 50", "steps = 0").replace("seed = 0", "sede = 0")
    text = text.replace("steps = 10", 'steps = "10"').replace('eps_max = "8/255"\n', "")
    recipe.write_text(text)
    error = failure(recipe)
    assert [(problem.line, problem.key) for problem in error.problems] == [
        (3, "sede"),
        (8, "method.eps_max"),
        (12, "method.perturbation.steps"),
        (21, "evaluate.attack.0.steps"),
    ]
    assert str(error).splitlines()[:3] == [
        f"{recipe}:3: sede",
        "  there is no such key here",
        '  did you mean "seed"?',
    ]
    assert f"{recipe}:21: evaluate.attack.0.steps\n  must be at least 1, not 0" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_overrides_come_after_the_file(recipe: Path) -> None:
    result = read_recipe(
        recipe,
        ["evaluate.attack.0.steps=100", "method.eps_max=4/255", "validate.attack.use=fgsm", "name=other"],
        REGISTRY,
    )
    assert result.evaluate.attack == (Use("pgd", Pgd(steps=100, restarts=5)),)
    assert result.method.options.eps_max == 4 / 255
    assert result.validate.attack.name == "fgsm"
    assert result.name == "other"


def test_problems_of_overrides_name_the_override(recipe: Path) -> None:
    recipe.write_text(TEXT.replace("epochs = 20", "epochs = 0"))
    error = failure(
        recipe, "method.perturbation.steps=ten", "nonsense", "foo.bar=1", "evaluate.attack.3.steps=1"
    )
    assert {(problem.line, problem.override, problem.key) for problem in error.problems} == {
        (18, None, "train.epochs"),
        (None, "method.perturbation.steps=ten", "method.perturbation.steps"),
        (None, "nonsense", ""),
        (None, "foo.bar=1", "foo"),
        (None, "evaluate.attack.3.steps=1", ""),
    }
    assert "--set foo.bar=1: foo\n  there is no such key here\n" in str(error)


def test_the_option_that_a_check_names_gives_the_line(recipe: Path) -> None:
    recipe.write_text(TEXT.replace('eps_max = "8/255"', 'eps_max = "8/255"\neps_min = 0.5'))
    (problem,) = failure(recipe).problems
    assert (problem.key, problem.line) == ("method.eps_min", 11)


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"a = 1\nb = \n", 2, "is not TOML"),
        (b"a = 1\na = 2\n", 2, "is not TOML"),
        (b'a = 1\nb = """\nnever closed\n', 3, "is not TOML"),
        (b"a = 1\nb = '\xff'\n", 2, "UTF-8"),
        (b"a = " + b"[" * 20_000, None, "too deeply"),
        (b"a = " + b"1" * 5_000, 1, "is not TOML"),
    ],
)
def test_unreadable_text_is_a_problem_with_a_line(
    tmp_path: Path, content: bytes, line: int | None, says: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    (problem,) = failure(path).problems
    assert problem.line == line
    assert says in problem.message


def test_a_file_that_cannot_be_opened_is_a_problem(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("robustplug.files.reading.os.open", refuse)
    assert "Permission denied" in str(failure(recipe))


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert "is a folder" in str(failure(tmp_path))
    (tmp_path / "recipe.toml").write_text(TEXT)
    assert str(tmp_path / "recipe.toml") in str(failure(tmp_path))


def test_another_kind_of_file_is_told_as_such(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for text, read, said in (
        ('base = "cat"\n[set]\nseed = 1', read_recipe, "is a study, not a recipe"),
        ('[task]\nuse = "digits"', read_study, "is a recipe, not a study"),
        ("[[row]]", read_study, "is a suite, not a study"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=said) as caught:
            read(file)
        assert "use it with: robustplug" in str(caught.value)


def test_bundled_recipes_are_found_from_any_folder(bundle: Path) -> None:
    assert list(bundled_recipes()) == ["cat", "trades-digits"]
    for name in ("cat", "cat.toml", "recipes/cat.toml", Path("cat")):
        assert find_recipe(name) == bundle / "cat.toml"
    Path("cat").mkdir()
    assert find_recipe("cat") == bundle / "cat.toml"
    Path("cat.toml").write_text(TEXT)
    assert find_recipe("cat.toml") == Path("cat.toml")


def test_an_installed_package_brings_its_recipes(bundle: Path) -> None:
    inside = bundle.parent / "robustplug" / "recipes"
    inside.mkdir(parents=True)
    (inside / "inner.toml").write_text(TEXT)
    assert bundled_recipes() == {"inner": inside / "inner.toml"}


@pytest.mark.parametrize("name", ["trades-digit", "other/cat.toml", "x" * 5000, "a\0b"])
def test_what_is_not_found_says_where_to_look(bundle: Path, name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_recipe(name)
    assert "robustplug recipes list" in str(caught.value)
    assert ('did you mean "trades-digits"?' in str(caught.value)) == (name == "trades-digit")


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, robustplug.recipe, robustplug.recipe.load, robustplug.recipe.write\n"
        "heavy = {'torch', 'pydantic', 'pydantic_core', 'numpy', 'tomli_w'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "robustplug.recipe.toml.files.find_recipe\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(robustplug.__file__).parents[1])
