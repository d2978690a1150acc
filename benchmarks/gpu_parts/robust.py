"""A robust network of CIFAR-10: trained, audited, and attacked by AutoAttack, ours and the reference code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .cifar import read
from .device import Machine
from .installed import NEEDED, missing
from .ours import noting, settings
from .report import Report

if TYPE_CHECKING:
    from robustplug.api import ArrayTask

TASK = "benchmark-cifar10"
Attack = Callable[[Machine, nn.Module, Tensor, Tensor], Tensor]
# The packages of the reference code, with the names that they give to the rows of a batch and to the attacks.
_REFERENCES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("pyautoattack", "batch_size", "attacks", {}),
    ("autoattack", "bs", "attacks_to_run", {"verbose": False}),
)
# Parts of AutoAttack in a dry run; a GPU runs the standard version.
_FEW = ("apgd-ce",)


@dataclass
class Robust:
    """Train a network, then measure it.

    Args:
        machine: the machine.
        report: takes the numbers.
        data: folder with CIFAR-10; None for none.
        changes: changes of the recipe, "key=value" each.
        folder: the run folder.
    """

    machine: Machine
    report: Report
    data: Path | None
    changes: Sequence[str]
    folder: Path
    task: ArrayTask | None = None
    model: nn.Module | None = None

    def recipe(self) -> dict[str, Any]:
        """Return the recipe: PGD-AT(3) in bfloat16, one cycle of the learning rate, averaged weights.

        These are about the passes for which a minute has room, if an update takes what it can at least.
        """
        sizes = self.machine.sizes
        attack = {"steps": 3, "step_size": "4/255"}
        return {
            "name": "gpu-cifar10",
            "task": {"use": TASK},
            "model": sizes.model,
            "method": {"use": "pgd-at", "vicinity": threat(self.machine), "perturbation": attack},
            "optimizer": {"use": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"use": "torch:OneCycleLR", "pct_start": 0.3, "cycle_momentum": False},
            "train": settings(
                epochs=sizes.epochs,
                batch_size=sizes.train_batch,
                precision="bfloat16",
                ema_decay=0.998,
                select="last",
                device=self.machine.device.type,
                fast="auto",
                deterministic=True,
            ),
            "validate": {"every": max(1, sizes.epochs // 3), "samples": 500, "batch_size": 500},
            "evaluate": {"samples": sizes.attacked, "batch_size": 500, "attack": []},
        }

    def train(self) -> None:
        """Read the data, and train."""
        import robustplug
        from robustplug.api import Component, NoOptions
        from robustplug.plugin.host import registered

        report = self.report
        lacking = missing(NEEDED)
        if lacking or self.data is None:
            why = f"packages are missing: {lacking}" if lacking else "no data are given: --data FOLDER"
            report.leave_out("training on CIFAR-10", why)
            return
        began = time.monotonic()
        task = self.task = read(self.data, 0 if self.machine.dry else min(16, os.cpu_count() or 1))
        read_seconds = time.monotonic() - began
        notes, first = list[str](), list[float]()
        reporter = noting(notes, lambda: first.append(time.monotonic() - began - read_seconds))
        with registered("task", Component(TASK, lambda options: task, NoOptions, "CIFAR-10")):
            found = robustplug.train(
                self.recipe(), overrides=self.changes, out=self.folder, reporter=reporter
            )
        self.machine.wait()
        seconds = time.monotonic() - began
        self.model = found.model.to(self.machine.device).eval()
        epochs = [report_.seconds for report_ in found.history]
        last = found.history[-1]
        report.put(
            "training",
            {
                "recipe": self.recipe() | {"overrides": list(self.changes)},
                "seconds": round(seconds, 2),
                "of which reading": round(read_seconds, 2),
                "of which until the first update": round(first[0], 2),
                "of which epochs": round(sum(epochs), 2),
                "each epoch": [round(each, 2) for each in epochs],
                "validation": dict(last.validation),
                "clean": found.result.attacks[0].accuracy,
            },
        )
        report.note("training", notes)
        report.say(
            f"{seconds:.1f} s: {read_seconds:.1f} s read the data, {first[0]:.1f} s until the first update, "
            f"{len(epochs)} epochs in {sum(epochs):.1f} s; clean {found.result.attacks[0].accuracy:.1%}, "
            f"PGD-10 on the validation split {last.validation.get('robust', float('nan')):.1%}"
        )

    def ready(self, what: str) -> bool:
        """Return whether there is a network, and say so if not."""
        if self.model is None:
            self.report.leave_out(what, "no network was trained")
        return self.model is not None

    def audit(self) -> None:
        """Run the audit, with the minutes that are left for it."""
        import robustplug

        if not self.ready("audit"):
            return
        assert self.model is not None
        x, y = self.samples(self.machine.sizes.audited)
        began = time.monotonic()
        found = robustplug.audit(
            self.model,
            data=(x, y),
            classes=10,
            threat=threat(self.machine),
            batch_size=len(x),
            device=self.machine.device.type,
            budget=max(0.05, self.report.left() / 60),
        )
        seconds = time.monotonic() - began
        self.report.put("audit", {**found.to_json(), "samples": len(x), "seconds": round(seconds, 2)})
        self.report.say(f"grade {found.grade}: {found.verdict}; {found.accuracy:.1%} in {seconds:.1f} s")

    def samples(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first test images, in [0, 1] on the CPU, and their labels."""
        from robustplug.api import Feed

        assert self.task is not None
        batch = next(iter(self.task.batches("test", Feed(batch_size=count))))
        return batch.x, batch.y

    def auto_attack(self) -> None:
        """Attack blocks of images by our AutoAttack and by the reference code, in turn."""
        if not self.ready("AutoAttack"):
            return
        assert self.model is not None
        report, model, sizes = self.report, self.model, self.machine.sizes
        theirs = reference()
        if theirs is None:
            why = "neither pyautoattack nor autoattack is installed: pip install pyautoattack"
            report.leave_out("AutoAttack, the reference", why)
        x, y = self.samples(sizes.attacked)
        if self.machine.dry:  # a network of one epoch is right on too few
            with torch.no_grad():
                y = model(x).argmax(1)
        done: dict[str, list[Tensor]] = {"ours": [], "reference": []}
        times = dict.fromkeys(done, 0.0)
        longest = 0.0
        for start in range(0, len(x), sizes.block):
            left = report.left()
            if left < longest:
                report.leave_out(f"AutoAttack: images from {start} on", f"{left:.0f} s are left")
                break
            block = x[start : start + sizes.block], y[start : start + sizes.block]
            attacks: tuple[tuple[str, Attack | None], ...] = (("ours", self.ours), ("reference", theirs))
            for name, attack in attacks:
                if attack is None:
                    continue
                self.machine.wait()
                began = time.monotonic()
                done[name].append(attack(self.machine, model, *block).cpu())
                self.machine.wait()
                times[name] += time.monotonic() - began
            longest = max(longest, left - report.left())
            self._note(done, times)
        if done["ours"]:
            found = report.results["autoattack"]
            report.say(" · ".join(f"{name}: {value}" for name, value in found.items()))

    def _note(self, done: dict[str, list[Tensor]], times: dict[str, float]) -> None:
        ours = torch.cat(done["ours"])
        found: dict[str, Any] = {
            "images": len(ours),
            "robust": float(ours.float().mean()),
            "seconds": round(times["ours"], 2),
        }
        if done["reference"]:
            other = torch.cat(done["reference"])
            found |= {
                "reference robust": float(other.float().mean()),
                "reference seconds": round(times["reference"], 2),
                "ratio": round(times["ours"] / max(1e-9, times["reference"]), 3),
                "other verdicts": int((ours != other).sum()),
                "only ours broke": int((~ours & other).sum()),
                "only the reference broke": int((ours & ~other).sum()),
            }
        self.report.put("autoattack", found)

    def ours(self, machine: Machine, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return for each image whether our AutoAttack leaves it correct, bool (N,)."""
        import robustplug

        custom = {"version": "custom", "attacks": list(_FEW)} if machine.dry else {}
        found = robustplug.evaluate(
            model,
            attacks=[{"use": "autoattack", **custom}],
            data=(x, y),
            classes=10,
            threat=threat(machine),
            batch_size=len(x),
            device=machine.device.type,
        )
        return torch.tensor([bool(value) for value in found.attacks[-1].right])


def threat(machine: Machine) -> dict[str, Any]:
    """Return the threat model, as in a recipe."""
    return {"use": "linf", "eps": machine.sizes.eps}


def reference() -> Attack | None:
    """Return a function that runs the reference code of AutoAttack; None if none is installed."""
    for module, rows, attacks, more in _REFERENCES:
        if not missing({module: module}):
            made = importlib.import_module(module).AutoAttack
            return functools.partial(_referee, made, rows, attacks, more)
    return None


def _referee(
    made: Any,
    rows: str,
    attacks: str,
    more: dict[str, Any],
    machine: Machine,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Return for each image whether the reference code leaves it correct, bool (N,)."""
    from robustplug.api import parse_fraction

    which = {"version": "custom", attacks: list(_FEW)} if machine.dry else {"version": "standard"}
    auto = made(
        model,
        norm="Linf",
        eps=parse_fraction(machine.sizes.eps),
        seed=0,
        device=machine.device,
        **which,
        **more,
    )
    x, y = x.to(machine.device), y.to(machine.device)
    with full_precision():
        found = auto.run_standard_evaluation(x, y, **{rows: len(x)})
        moved: Tensor = found[0] if isinstance(found, tuple) else found
        with torch.no_grad():
            robust: Tensor = model(moved.to(machine.device)).argmax(1) == y
    return robust


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 for a block, as our evaluation does, and not in TensorFloat-32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
