from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import robustplug
from robustplug.errors import Failed, Refused, RunError, out_of_memory

from .failing import FAILING, Raise, raising, recipe
from .runs import offered

MADE = 'perturbation "failing" of the plugin tests'


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with offered("perturbation", FAILING):
        yield
    raising.clear()


def at(update: int, error: BaseException) -> Raise:
    """Return what raises an error in one update."""

    def fail(step: Any) -> None:
        if step.progress.update == update:
            raise error

    return fail


ERRORS: dict[str, BaseException] = {
    "a bug": KeyError("no such key"),
    "several lines": RuntimeError("one\n  two\n\nthree"),
    "the end of the program": SystemExit(3),
    "no message": AssertionError(),
    "an interrupt of its own": type("Mine", (KeyboardInterrupt,), {})("mine"),
    "another exception": type("Other", (BaseException,), {})("other"),
    "a generator's end": GeneratorExit("over"),
    "a closed pipe of its own": BrokenPipeError(32, "Broken pipe"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_component_that_raises_in_training_is_named_with_the_place_and_what_is_kept(
    error: BaseException,
) -> None:
    raising.append(at(1, error))
    with pytest.raises(Failed) as found:
        robustplug.train(recipe(), out="run")
    said = str(found.value)
    assert said.startswith(f"{MADE} failed in epoch 1, batch 2 of 4: {type(error).__name__}: ")
    assert "No checkpoint was written yet" in said
    assert "(test_failures.py, line " in said
    assert "\n" not in said
    assert found.value.__cause__ is error
    assert found.value.folder == Path("run")


def test_a_run_goes_on_once_the_component_is_mended() -> None:
    raising.append(at(6, ZeroDivisionError()))
    with pytest.raises(
        Failed, match="epoch 2, batch 3 of 4.*last good checkpoint.*epoch-00001-batch-0000000"
    ):
        robustplug.train(recipe(), out="run")
    raising.clear()
    resumed = robustplug.train(resume="run")
    assert [report.epoch for report in resumed.history] == [0, 1]


def test_ctrl_c_is_not_a_failure_of_the_component_that_runs() -> None:
    raising.append(at(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        robustplug.train(recipe(), out="run")


def test_a_refusal_in_training_states_the_reason_and_what_is_kept() -> None:
    raising.append(at(1, Refused("not on this model")))
    with pytest.raises(RunError, match=r"^not on this model\. No checkpoint"):
        robustplug.train(recipe(), out="run")


NO_MEMORY: dict[str, BaseException] = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "CPU": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
def test_exhausted_memory_is_recognised_behind_other_errors_too(error: BaseException) -> None:
    assert out_of_memory(error)
    other = ValueError("the library failed")
    other.__cause__ = error
    assert out_of_memory(other)
    assert not out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize("error", [NO_MEMORY["CUDA"], NO_MEMORY["Python"]], ids=repr)
def test_exhausted_memory_states_the_batch_size_and_one_that_probably_fits(error: BaseException) -> None:
    raising.append(at(5, error))
    with pytest.raises(RunError) as found:
        robustplug.train(recipe(), out="run")
    said = str(found.value)
    assert not isinstance(found.value, Failed)
    assert "memory is exhausted in epoch 2, batch 2 of 4 with train.batch_size = 40" in said
    for part in (MADE, "train.batch_size = 20", "--fit-batch", "The last good checkpoint is"):
        assert part in said
    assert found.value.__cause__ is error


def test_memory_that_runs_out_in_a_row_affects_only_that_row() -> None:
    def exhausted(step: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trained = robustplug.train(recipe(train={"epochs": 1}), out="run")
    raising.append(exhausted)
    failing = {"use": "failing", "only_training": False}
    result = robustplug.evaluate("run", attacks=[failing, "fgsm"], device="cpu")
    clean, row, last = result.attacks
    assert "evaluate.batch_size = 48" in row.skipped
    assert "evaluate.batch_size = 24" in row.skipped
    assert not clean.skipped
    assert not last.skipped
    assert trained.result.attacks[0].accuracy == clean.accuracy


def test_a_row_names_the_component_that_failed() -> None:
    robustplug.train(recipe(train={"epochs": 1}), out="run")
    raising.append(lambda step: [].pop())
    result = robustplug.evaluate("run", attacks=[{"use": "failing", "only_training": False}], device="cpu")
    assert result.attacks[1].skipped.startswith(f"{MADE}: IndexError: pop from empty list")


def test_a_model_that_fails_on_clean_samples_ends_the_evaluation() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            if len(x) > 40:
                raise ZeroDivisionError("in the model")
            return x.flatten(1)[:, :10]

    with pytest.raises(RunError, match="clean row.*ZeroDivisionError: in the model"):
        robustplug.evaluate(Broken(), task="digits", attacks=["fgsm"], device="cpu")


def test_training_that_would_not_end_is_refused() -> None:
    with pytest.raises(robustplug.api.RecipeError, match=r"train\.epochs"):
        robustplug.train(recipe(train={"epochs": 2**31 - 1}, method={}), out="run")
    assert not Path("run").exists()


def test_an_attack_that_would_not_end_is_refused() -> None:
    robustplug.train(recipe(train={"epochs": 1}), out="run")
    result = robustplug.evaluate(
        "run", attacks=[{"use": "pgd", "steps": 2**31 - 1, "restarts": 99}], device="cpu"
    )
    assert "lower its steps" in result.attacks[1].skipped
