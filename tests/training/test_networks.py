"""A second network of a method: where its weights come from, what trains it, and where they go."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import robustplug
from robustplug.api import Batch, Component, Method, MethodOptions, ParamGroup, Step, Task, Use, View
from robustplug.recipe.errors import RecipeError
from robustplug.recipe.load import recipe_from_mapping
from robustplug.recipe.schema import recipe_schema
from robustplug.recipe.write import recipe_to_mapping
from robustplug.subjects.formats.weights import read_state
from robustplug.subjects.starting import load_networks
from robustplug.testing import Bench, Subject
from robustplug.training.train import Training

from ..cli.conftest import run_cli
from .runs import MODEL, newest, offered, tiny
from .test_resume import check_resume

TEACHER = "state/teacher."


@dataclass(frozen=True)
class TaughtOptions(MethodOptions):
    """Options of the method below."""

    teacher: Annotated[Use | None, "model"] = None
    trained: bool = False


class Taught(Method[TaughtOptions]):
    """Train on the predictions of a teacher, and perhaps the teacher on the labels."""

    teacher: nn.Module | None

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        groups = list(super().setup(model, task))
        if self.options.trained and self.teacher is not None:
            groups.append(ParamGroup("teacher", tuple(self.teacher.parameters()), always=True))
        return groups

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        if self.teacher is None:
            return [View.of(point)]
        rows = step.forward(point.x, module=self.teacher).softmax(1)
        return [View.of(point).replace(y=rows)]


@dataclass(frozen=True)
class AroundOptions:
    """Options of a wrapper with a network of its own."""

    inner: Annotated[Use, "method"]
    helper: Annotated[Use, "model"]


class Around(robustplug.api.Wrapper[AroundOptions]):
    """A method around a method, with a network."""


TAUGHT = Component("taught", Taught, TaughtOptions)
AROUND = Component("around", Around, AroundOptions)


@pytest.fixture(scope="module", autouse=True)
def methods() -> Any:
    with offered("method", TAUGHT, AROUND):
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a teacher of another width, with BatchNorm statistics."""
    recipe = tiny(model={"width": 6}, train={"epochs": 1})
    return robustplug.train(recipe, out=tmp_path_factory.mktemp("teacher") / "run").folder


def taught(start: Any = None, **method: Any) -> dict[str, Any]:
    table = {"use": "taught", **({} if start is None else {"teacher": {"from": str(start)}}), **method}
    return tiny() | {"method": table}


def held(folder: Path) -> dict[str, Tensor]:
    """Return the teacher in the newest checkpoint of a run."""
    found = load_file(folder / "checkpoints" / f"{newest(folder)}.safetensors")
    return {name.removeprefix(TEACHER): value for name, value in found.items() if name.startswith(TEACHER)}


def agree(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_says_what_the_network_is(teacher: Path) -> None:
    recipe = recipe_from_mapping(taught(teacher))
    assert (
        recipe_to_mapping(recipe)["method"]["teacher"] | MODEL | {"width": 6}
        == (recipe_to_mapping(recipe)["method"]["teacher"])
    )
    own = taught(teacher, teacher={"from": str(teacher), "use": "small-cnn", "width": 5, "hidden": 16})
    assert recipe_from_mapping(own).method.options.teacher.options.width == 5


@pytest.mark.parametrize("kind", ["run folder", "checkpoint", "file"])
def test_the_weights_come_from_the_run_and_stay_in_every_checkpoint(
    kind: str, teacher: Path, tmp_path: Path
) -> None:
    own = load_file(teacher / "model.safetensors")
    table: dict[str, Any] = {"from": str(teacher)}
    if kind == "file":
        table = {"from": str(teacher / "model.safetensors"), **MODEL, "width": 6}
    if kind == "checkpoint":
        place = teacher / "checkpoints" / f"{newest(teacher)}.safetensors"
        table = {"from": str(place), **MODEL, "width": 6}
    trained = robustplug.train(taught(teacher=table), out=tmp_path / "run")
    assert agree(held(trained.folder), own)
    student = load_file(trained.folder / "model.safetensors")
    assert student["network.0.weight"].shape[0] == 4


def test_of_a_checkpoint_with_averaged_weights_the_average_is_used(tmp_path: Path) -> None:
    folder = robustplug.train(tiny(train={"epochs": 1, "ema_decay": 0.5}), out=tmp_path / "teacher").folder
    place = folder / "checkpoints" / f"{newest(folder)}.safetensors"
    state, (note,) = read_state(place)
    assert agree(state, load_file(folder / "model.safetensors"))
    assert not torch.equal(state["network.0.weight"], load_file(place)["model/network.0.weight"])
    assert "averaged" in note


def test_a_gradient_through_two_networks_costs_two_backwards() -> None:
    made = Bench(Subject("method", "taught", {"teacher": {"use": "small-cnn", "width": 2, "hidden": 4}}))
    assert isinstance(made.method, Taught)
    step = made.step(made.batch())
    rows = len(step.batch)
    for _ in range(2):
        before = step.meter.forwards, step.meter.backwards
        with step.attack_mode():
            x = step.batch.x.clone().requires_grad_()
            both = step.forward(x) - step.forward(x, module=made.method.teacher)
            assert step.gradient(both.sum(), x).any()
            step.forward(step.batch.x, module=made.method.teacher)
            step.gradient(step.forward(x).sum(), x)
        spent = step.meter.forwards - before[0], step.meter.backwards - before[1]
        assert spent == (4 * rows, 3 * rows)


def test_the_network_is_frozen_and_keeps_its_statistics_unless_a_group_names_it(
    teacher: Path, tmp_path: Path
) -> None:
    own = load_file(teacher / "model.safetensors")
    trained = robustplug.train(taught(teacher, trained=True), out=tmp_path / "run")
    after = held(trained.folder)
    moved = {name for name, value in own.items() if not torch.equal(value, after[name])}
    assert "network.0.weight" in moved
    assert not {name for name in moved if "running" in name}


def test_no_network_where_the_slot_is_empty(tmp_path: Path) -> None:
    trained = robustplug.train(taught(), out=tmp_path / "run")
    assert not held(trained.folder)


def test_a_finished_run_is_evaluated_after_its_teacher_is_gone(teacher: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    trained = robustplug.train(taught(copy), out=tmp_path / "run")
    shutil.rmtree(copy)
    again = robustplug.evaluate(tmp_path / "run", attacks=["fgsm"])
    assert again.attacks[0].right == trained.result.attacks[0].right
    assert run_cli("evaluate", tmp_path / "run", "--set", "evaluate.samples=16").exit_code == 0
    extended = robustplug.train(resume=tmp_path / "run", epochs=3)
    assert agree(held(extended.folder), load_file(teacher / "model.safetensors"))


@pytest.mark.table(1)
@pytest.mark.parametrize("trained", [False, True])
def test_a_killed_run_goes_on_bit_for_bit(trained: bool, teacher: Path, tmp_path: Path) -> None:
    check_resume(taught(teacher, trained=trained), tmp_path, (2, 4, 7))


def written(recipe: str, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe)
    return path


def toml(start: str, more: str = "", method: str = "method", use: str = "taught") -> str:
    return f"""task = {{ use = "digits" }}
[method]
use = "{use}"
[{method}.teacher]
from = "{start}"
{more}"""


@pytest.mark.parametrize("more", ["", 'use = "small-cnn"'])
@pytest.mark.parametrize("command", ["validate", "train"])
def test_a_missing_teacher_is_an_error_with_its_place(command: str, more: str, tmp_path: Path) -> None:
    path = written(toml("runs/absent", more), tmp_path)
    result = run_cli("validate", path) if command == "validate" else run_cli("train", "--recipe", path)
    assert result.exit_code == 2
    assert "method.teacher.from" in result.output
    assert "runs/absent" in result.output
    assert "Traceback" not in result.output


def test_a_missing_teacher_within_a_wrapped_method_is_an_error_with_its_place(tmp_path: Path) -> None:
    text = toml("runs/absent", method="method.inner", use="awp")
    text = text.replace("[method.inner.teacher]", '[method.inner]\nuse = "taught"\n[method.inner.teacher]')
    result = run_cli("validate", written(text, tmp_path))
    assert (result.exit_code, "method.inner.teacher.from" in result.output) == (2, True)


def test_a_teacher_that_is_not_finished_is_an_error_with_its_place(teacher: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    (copy / "model.safetensors").unlink()
    result = run_cli("validate", written(toml(str(copy)), tmp_path))
    assert result.exit_code == 2
    assert "method.teacher.from" in result.output
    assert "nor the folder of a finished run" in result.output


def test_a_folder_without_a_run_and_a_file_without_a_model_say_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pt").write_bytes(b"")
    for name in ("empty", "file.pt"):
        result = run_cli("validate", written(toml(str(tmp_path / name)), tmp_path))
        assert result.exit_code == 2
        assert "method.teacher.from" in result.output
        assert "is not a run folder" in result.output
        assert 'name the model: use = "…"' in result.output


def test_a_valid_teacher_is_valid(teacher: Path, tmp_path: Path) -> None:
    assert run_cli("validate", written(toml(str(teacher)), tmp_path)).exit_code == 0


def test_a_teacher_of_other_classes_is_an_error_with_its_place(teacher: Path, tmp_path: Path) -> None:
    recipe = taught(teacher)
    recipe["task"] = {**recipe["task"], "classes": [0, 1, 2]}
    with pytest.raises(robustplug.api.RunError, match=r"method\.teacher"):
        robustplug.train(recipe, out=tmp_path / "run")


def test_an_untrained_network_is_said() -> None:
    recipe = recipe_from_mapping(taught(teacher=MODEL))
    parts = Training(recipe, Path("nowhere")).parts
    (note,) = load_networks(parts.method, parts.recipe.method, parts.task.info)
    assert note.startswith("method.teacher has no trained weights")


def test_a_wrapper_and_its_inner_method_have_networks(teacher: Path, tmp_path: Path) -> None:
    recipe = tiny() | {
        "method": {
            "use": "around",
            "helper": {"from": str(teacher)},
            "inner": {"use": "taught", "teacher": {"from": str(teacher)}},
        }
    }
    trained = robustplug.train(recipe, out=tmp_path / "run")
    found = load_file(trained.folder / "checkpoints" / f"{newest(trained.folder)}.safetensors")
    own = load_file(teacher / "model.safetensors")
    for place in ("helper", "inner.teacher"):
        prefix = f"state/{place}."
        assert agree({k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}, own)


def test_the_schema_knows_a_network_and_where_it_starts_from(teacher: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(recipe_schema())
    task = {"use": "digits"}
    for table in ({"from": "runs/a"}, {**MODEL, "from": "runs/a"}, {"use": "small-cnn"}):
        assert check.is_valid({"task": task, "method": {"use": "taught", "teacher": table}})
        assert check.is_valid({"task": task, "model": table, "method": {"use": "erm"}})
    for wrong in ({}, {"from": 1}, {"use": "ce"}, {**MODEL, "from": 3}, {"use": "small-cnn", "wdth": 1}):
        assert not check.is_valid({"task": task, "method": {"use": "taught", "teacher": wrong}})


def test_a_network_is_built_from_the_seed_and_leaves_the_student_alone() -> None:
    def weights(seed: int, method: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        parts = Training(
            recipe_from_mapping(tiny() | {"seed": seed, "method": method}), Path("nowhere")
        ).parts
        return dict(parts.model.state_dict()), dict(parts.method.state.state_dict())

    table = {"use": "taught", "teacher": MODEL}
    (student, network), (again, twin), (plain, _) = (
        weights(3, table),
        weights(3, table),
        weights(3, {"use": "erm"}),
    )
    assert agree(student, again)
    assert agree(network, twin)
    assert agree(student, plain)
    assert not agree(network, weights(4, table)[1])
    assert not agree({f"teacher.{name}": value for name, value in student.items()}, network)


def test_a_required_network_that_is_not_named_is_an_error_with_its_place() -> None:
    with pytest.raises(RecipeError, match=r"method\.helper"):
        recipe_from_mapping(tiny() | {"method": {"use": "around", "inner": {"use": "erm"}}})
