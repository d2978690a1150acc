"""The `autoattack` component gives each sample the outcome of pyautoattack called by hand."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustplug
from robustplug.core.types import Batch, Result
from robustplug.recipe.errors import RecipeError

from ..builtin.attacks import attacked, digits, trained_model

SIZE, BATCH = 60, 25
EPS = {"linf": 0.06, "l2": 0.4}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained_model()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return digits(SIZE)


def made(attack: Any, changes: dict[str, Any], *arguments: Any, **options: Any) -> Any:
    return attack(*arguments, **{**options, **changes})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all of pyautoattack's attacks short, for both sides alike."""
    import pyautoattack.autoattack as library

    for name, changes in {
        "APGDAttack": {"n_iter": 10},
        "APGDAttack_targeted": {"n_iter": 10},
        "FABAttack_PT": {"n_iter": 5},
        "SquareAttack": {"n_queries": 100},
    }.items():
        monkeypatch.setattr(library, name, functools.partial(made, getattr(library, name), changes))
    monkeypatch.setattr(library.AutoAttack, "_set_version", short_version)


def short_version(self: Any, version: str) -> None:
    self.attacks_to_run = ["apgd-ce", "apgd-t", "fab-t", "square"]
    self.apgd.n_restarts = self.apgd_targeted.n_restarts = self.fab.n_restarts = 1


def by_hand(model: nn.Module, batch: Batch, norm: str, **options: Any) -> Tensor:
    from pyautoattack import AutoAttack

    with torch.random.fork_rng(devices=[]):
        attack = AutoAttack(model, eps=EPS[norm], norm={"linf": "Linf", "l2": "L2"}[norm], seed=0, **options)
        found, _ = attack.run_standard_evaluation(batch.x, batch.y, batch_size=BATCH)
    with torch.no_grad():
        return model(found).argmax(1) == batch.y  # type: ignore[no-any-return]


def ours(model: nn.Module, norm: str, **options: Any) -> Result:
    return robustplug.evaluate(
        model,
        task="digits",
        attacks=[{"use": "autoattack", **options}],
        vicinity={"use": norm, "eps": EPS[norm]},
        samples=SIZE,
        batch_size=BATCH,
        device="cpu",
    )


def check(result: Result, right: Tensor) -> None:
    last = result.attacks[-1]
    assert torch.tensor(last.right).tolist() == right.tolist()
    assert 0 < last.accuracy < result.attacks[0].accuracy
    assert not any(row.skipped or row.rejected for row in result.attacks)


@pytest.mark.table(1)
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("norm", EPS)
def test_each_sample_has_the_outcome_of_a_call_by_hand(norm: str, model: nn.Module, batch: Batch) -> None:
    result = ours(model, norm)
    check(result, by_hand(model, batch, norm))
    names = [row.name for row in result.attacks]
    assert names == ["clean", *(f"autoattack · {part}" for part in ("apgd-ce", "apgd-t", "fab-t", "square"))]
    assert len({row.chain for row in result.attacks[1:]}) == 1


@pytest.mark.usefixtures("short")
def test_a_custom_version(model: nn.Module, batch: Batch) -> None:
    attacks: list[Any] = ["square", "fab"]
    expected = by_hand(model, batch, "linf", version="custom", attacks=attacks)
    check(ours(model, "linf", version="custom", attacks=attacks), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_no_forward_more_than_by_hand(model: nn.Module, batch: Batch) -> None:
    rows = 0

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = model.register_forward_pre_hook(note)
    try:
        by_hand(model, batch, "linf")
        hand, rows = rows, 0
        result = ours(model, "linf")
    finally:
        handle.remove()
    # Once more than by hand the clean samples tell logits from probabilities.
    assert rows <= hand + SIZE
    assert round(sum(row.forwards for row in result.attacks) * SIZE) <= rows


@pytest.mark.slow
@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_the_whole_ensemble(version: Any, norm: str, model: nn.Module, batch: Batch) -> None:
    check(ours(model, norm, version=version), by_hand(model, batch, norm, version=version))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("classes", "works"), [(2, {"apgd-ce", "square", "fab-t"}), (3, {"apgd-ce", "square", "fab-t"})]
)
def test_few_classes_skip_what_needs_more(classes: int, works: set[str]) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1)[:, k::classes].mean(1) for k in range(classes)], 1) * 10

    from robustplug.devices.processes import start
    from robustplug.evaluation.evaluate import Evaluation
    from robustplug.evaluation.rows import chain_of_attacks
    from robustplug.plugin.component import Use
    from robustplug.recipe.convert import resolve
    from robustplug.subjects.data.task import ArrayTask
    from robustplug.subjects.loading import load_target

    x = 0.3 + 0.4 * torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    data = (x, model(x).argmax(1))
    task = ArrayTask(
        {"train": data, "validation": data, "test": data},
        class_names=[str(k) for k in range(classes)],
        default_model="none",
    )
    threat = resolve(Use("linf", {"eps": 0.02}), "vicinity")
    attacks = chain_of_attacks([resolve(Use("autoattack"), "perturbation")], threat, "attack")
    module = load_target(model, task.info).module
    vicinity, loss = robustplug.build("vicinity", "linf", eps=0.02), robustplug.build("loss", "ce")
    rows = Evaluation(module, task, vicinity, loss, 0, start("cpu", "float32")).run("test", attacks, 20)
    done = {row.name.removeprefix("autoattack · ") for row in rows[1:] if not row.skipped}
    assert done == works, [row.skipped for row in rows]
    (refused,) = [row.skipped for row in rows if row.skipped]
    assert f"needs at least 4 classes, and there are {classes}" in refused
    assert 'version = "custom"' in refused


@pytest.mark.usefixtures("short")
def test_rows_of_different_radii(model: nn.Module, batch: Batch) -> None:
    vicinity = robustplug.build("vicinity", "linf", eps=0.1)
    radius = torch.tensor([0.0, 0.02, 0.1]).repeat(20)
    found = attacked("autoattack", model, batch, vicinity, radius, version="custom", attacks=("apgd-ce",))
    reach = (found - batch.x).abs().flatten(1).amax(1)
    assert bool((reach <= radius + 1e-6).all())
    assert torch.equal(found[::3], batch.x[::3])


@pytest.mark.parametrize("options", [{"version": "custom"}, {"attacks": ["square"]}])
def test_attacks_belong_to_the_custom_version(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match='version = "custom"'):
        robustplug.build("perturbation", "autoattack", **options)
