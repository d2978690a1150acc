"""Compare our best attack in each threat model with the best of ART, torchattacks and foolbox.

    python benchmarks/threats.py --out benchmarks/threats.json --page docs/threats.md

Small networks are trained on the digits, one for each seed. All attacks see the same test samples and have at
most the number of passes that the row states; passes of ours are those that it counts, passes of others those
that a hook on the model counts. An example counts if it is in our threat model, except where a library turns
images by an interpolation of its own. A library that is not installed, or that an attack of it fails, is said
in the table. Exit code 1 if ours leaves more samples right than another, by more than one in a hundred.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import robustplug

SAMPLES, EPOCHS, SLACK = 200, 10, 0.01
COMMAND = "python benchmarks/threats.py --out benchmarks/threats.json --page docs/threats.md"
Other = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One threat model.

    Attributes:
        threat: table of the vicinity.
        ours: our attacks, of which the best counts.
        others: attacks of libraries by name, functions of (model, inputs, labels).
        passes: largest number of forward passes of a sample.
        judged: whether an example of a library must be in our threat model.
    """

    threat: Mapping[str, Any]
    ours: Sequence[Mapping[str, Any]]
    others: Mapping[str, Other]
    passes: int
    judged: bool = True


@dataclass
class Measured:
    """Accuracies of a row under each attack, one for each seed; and what failed.

    Attributes:
        ours, others: accuracy of each seed, by attack.
        spent: forward passes of a sample, by attack, of the last seed.
        failed: why an attack has no accuracy.
    """

    ours: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def by_foolbox(name: str, eps: float | None, **options: Any) -> Other:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox
        from foolbox.models.pytorch import PyTorchModel

        attack = getattr(foolbox.attacks, name)(**options)
        wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
        given = {} if eps is None else {"epsilons": eps}
        found: Tensor = attack(wrapped, x, y, **given)[1]
        return found

    return run


def by_torchattacks(name: str, **options: Any) -> Other:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks

        found: Tensor = getattr(torchattacks, name)(model, **options)(x, y)
        return found

    return run


def by_art(name: str, mask: Tensor | None = None, **options: Any) -> Other:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        attack = getattr(evasion, name)(classifier, **options)
        given = {} if mask is None else {"mask": mask.numpy().astype(np.float32)}
        return torch.from_numpy(attack.generate(x.numpy(), nn.functional.one_hot(y, 10).numpy(), **given))

    return run


def _auto_pgd(norm: float, eps: float, restarts: int = 1) -> Other:
    return by_art(
        "AutoProjectedGradientDescent",
        norm=norm,
        eps=eps,
        eps_step=eps / 5,
        max_iter=100 // restarts,
        nb_random_init=restarts,
        verbose=False,
    )


def by_pyautoattack(norm: str, eps: float, steps: int, restarts: int = 1) -> Other:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from pyautoattack import autopgd_base

        attack = autopgd_base.APGDAttack(
            model,
            n_iter=steps,
            n_restarts=restarts,
            norm=norm,
            eps=eps,
            device=torch.device("cpu"),
            use_largereps=norm == "L1",
        )
        found: Tensor = attack.perturb(x, y)
        return found

    return run


def _steps(name: str, steps: int, **options: Any) -> dict[str, Any]:
    return {"use": name, "steps": steps, **options}


MIDDLE = torch.zeros(1, 8, 8)
MIDDLE[:, 2:6, 2:6] = 1
QUIET: dict[str, Any] = {"verbose": False}

# Attacks along gradients: once, and with as many passes from four starts.
LINES = [
    _steps(name, steps, **restarts)
    for name in ("apgd-ce", "apgd-dlr", "pgd")
    for steps, restarts in ((99, {}), (24, {"restarts": 4}))
]

ROWS: dict[str, Row] = {
    "linf": Row(
        {"use": "linf", "eps": 0.15},
        LINES,
        {
            "torchattacks APGD": by_torchattacks("APGD", eps=0.15, steps=99),
            "torchattacks APGD × 4": by_torchattacks("APGD", eps=0.15, steps=24, n_restarts=4),
            "art AutoPGD": _auto_pgd(np.inf, 0.15),
            "art AutoPGD × 4": _auto_pgd(np.inf, 0.15, restarts=4),
            "foolbox LinfPGD": by_foolbox("LinfPGD", 0.15, steps=100),
        },
        100,
    ),
    "l2": Row(
        {"use": "l2", "eps": 0.8},
        LINES,
        {
            "torchattacks APGD": by_torchattacks("APGD", norm="L2", eps=0.8, steps=99),
            "torchattacks APGD × 4": by_torchattacks("APGD", norm="L2", eps=0.8, steps=24, n_restarts=4),
            "art AutoPGD": _auto_pgd(2, 0.8),
            "art AutoPGD × 4": _auto_pgd(2, 0.8, restarts=4),
            "foolbox L2PGD": by_foolbox("L2PGD", 0.8, steps=100),
        },
        100,
    ),
    "l1": Row(
        {"use": "l1", "eps": 1.5},
        LINES,
        {
            "pyautoattack APGD": by_pyautoattack("L1", 1.5, 97),
            "pyautoattack APGD × 4": by_pyautoattack("L1", 1.5, 22, restarts=4),
            "art AutoPGD": _auto_pgd(1, 1.5),
            "art AutoPGD × 4": _auto_pgd(1, 1.5, restarts=4),
            "foolbox SparseL1Descent": by_foolbox("SparseL1DescentAttack", 1.5, steps=100),
        },
        100,
    ),
    "mask": Row(
        {"use": "mask", "box": [2, 2, 4, 4], "inner": {"use": "linf", "eps": 0.25}},
        LINES,
        {
            "art PGD": by_art(
                "ProjectedGradientDescentPyTorch", MIDDLE, eps=0.25, eps_step=0.02, max_iter=100, **QUIET
            ),
            "art PGD × 4": by_art(
                "ProjectedGradientDescentPyTorch",
                MIDDLE,
                eps=0.25,
                eps_step=0.05,
                max_iter=25,
                num_random_init=4,
                **QUIET,
            ),
        },
        100,
    ),
    "l0": Row(
        {"use": "l0", "eps": 4},
        [{"use": "sparse-rs", "queries": 1000}],
        {
            "torchattacks OnePixel": by_torchattacks("OnePixel", pixels=4, steps=50, popsize=20),
            "art PixelAttack": by_art("PixelAttack", th=4, es=1, max_iter=10),
        },
        1000,
    ),
    "patch": Row({"use": "patch", "eps": 3}, [{"use": "sparse-rs", "queries": 1000}], {}, 1000),
    "spatial": Row(
        {"use": "spatial", "degrees": 15, "shift": 0.125},
        [
            {"use": "grid", "points": 5},
            {"use": "in-parameters", "attack": {"use": "pgd", "steps": 30, "restarts": 4}},
        ],
        {
            "foolbox Spatial": by_foolbox(
                "SpatialAttack", None, max_translation=1, max_rotation=15, num_translations=5, num_rotations=5
            ),
            "art Spatial": by_art(
                "SpatialTransformation",
                max_translation=12.5,
                num_translations=5,
                max_rotation=15,
                num_rotations=5,
                **QUIET,
            ),
        },
        125,
        judged=False,
    ),
    "universal": Row(
        {"use": "linf", "eps": 0.25},
        [{"use": "universal", "epochs": 10}],
        {
            "art Universal": by_art(
                "UniversalPerturbation", attacker="fgsm", eps=0.25, max_iter=5, delta=0.05, **QUIET
            )
        },
        10_000,
    ),
}


def trained(folder: Path, seed: int) -> Path:
    """Train a network of the digits, and return its run folder."""
    recipe = {
        "seed": seed,
        "task": {"use": "digits"},
        "method": {
            "use": "pgd-at",
            "vicinity": {"use": "linf", "eps": 0.1},
            "perturbation": {"use": "pgd", "steps": 3},
        },
        "train": {"epochs": EPOCHS},
        "validate": {"samples": 16},
        "evaluate": {"attack": [], "samples": 8},
    }
    robustplug.train(recipe, out=folder)
    return folder


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Return the first test samples of the digits."""
    task: Any = robustplug.build("task", "digits")
    batch = next(iter(task.batches("test", robustplug.api.Feed(batch_size=count, samples=count))))
    return batch.x, batch.y


def by_another(row: Row, model: nn.Module, attack: Other, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the accuracy under an attack of a library, and the forward passes of a sample that it took."""
    passes = 0

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal passes
        passes += len(given[0])

    vicinity = robustplug.build(
        "vicinity", row.threat["use"], **{k: v for k, v in row.threat.items() if k != "use"}
    )
    before = [parameter.requires_grad for parameter in model.parameters()]
    handle = model.register_forward_pre_hook(count)
    try:
        found = attack(model.eval(), x.clone(), y.clone()).detach().float()
    finally:
        handle.remove()
        for parameter, needed in zip(model.parameters(), before, strict=True):
            parameter.requires_grad_(needed)
    with torch.no_grad():
        wrong = model.eval()(found).argmax(1) != y
        wrong |= model(x).argmax(1) != y
    if row.judged:
        wrong &= vicinity.contains(found, x, torch.full((len(x),), vicinity.eps)) | (model(x).argmax(1) != y)
    return 1 - float(wrong.float().mean()), passes / len(x)


def measure(names: Sequence[str], seeds: int, count: int) -> dict[str, Measured]:
    """Attack the networks of all seeds."""
    found = {name: Measured() for name in names}
    x, y = samples(count)
    with tempfile.TemporaryDirectory() as top:
        for seed in range(seeds):
            folder = trained(Path(top) / str(seed), seed)
            model = robustplug.api.open_model(folder, robustplug.build("task", "digits").info)
            for name in names:
                _measure(ROWS[name], found[name], folder, model, x, y, seed)
                print(f"seed {seed} · {name}", file=sys.stderr)
    return found


def _measure(
    row: Row, found: Measured, folder: Path, model: nn.Module, x: Tensor, y: Tensor, seed: int
) -> None:
    for table in row.ours:
        result = robustplug.evaluate(folder, attacks=[table], threat=row.threat, samples=len(x))
        last = result.attacks[-1]
        name = str(table["use"]) + (f" × {table['restarts']}" if "restarts" in table else "")
        if last.skipped:
            found.failed[name] = last.skipped
            continue
        found.ours.setdefault(name, []).append(last.accuracy)
        # The forward pass that judges each result is not the attack's.
        found.spent[name] = last.forwards - last.attempted / len(x)
    for name, attack in row.others.items():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            accuracy, found.spent[name] = by_another(row, model, attack, x, y)
        except Exception as error:  # a library may fail in any way, and the others still count
            found.failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        found.others.setdefault(name, []).append(accuracy)


def _best(accuracies: Mapping[str, Sequence[float]]) -> tuple[str, float] | None:
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    return min(means.items(), key=lambda pair: pair[1]) if means else None


def as_json(found: Mapping[str, Measured], seeds: int, count: int) -> str:
    """Return what was measured as text, from which `from_json` makes it again."""
    table = {"seeds": seeds, "samples": count, "threats": {name: asdict(row) for name, row in found.items()}}
    return json.dumps(table, indent=1) + "\n"


def from_json(text: str) -> tuple[dict[str, Measured], int, int]:
    """Return what was measured, the number of seeds, and that of samples."""
    table = json.loads(text)
    found = {name: Measured(**row) for name, row in table["threats"].items()}
    return found, table["seeds"], table["samples"]


def page(found: Mapping[str, Measured], seeds: int = 0, count: int = 0) -> str:
    """Return the table as a page of the docs; without anything measured, a page that says so."""
    head = [
        "# Attacks in each threat model, beside those of other libraries",
        "",
        "Accuracy of networks on the digits, trained with PGD in L∞, under the best attack of each side, at "
        "equal passes.",
        f"Made by `{COMMAND}`.",
        "",
    ]
    if not found:
        return "\n".join([*head, "Not measured yet.", ""])
    lines = [
        *head,
        f"Mean of {seeds} seeds, {count} test samples.",
        "",
        "| threat model | ours | accuracy | passes | other | accuracy | passes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [name]
        for side in (_best(row.ours), _best(row.others)):
            cells += (
                ["none", "", ""] if side is None else [side[0], f"{side[1]:.1%}", f"{row.spent[side[0]]:.0f}"]
            )
        lines.append(f"| {' | '.join(cells)} |")
    failed = [
        f"- {name}, {attack}: {why}" for name, row in found.items() for attack, why in row.failed.items()
    ]
    return "\n".join([*lines, *(["", "Not measured:", "", *failed] if failed else []), ""])


def weaker(found: Mapping[str, Measured]) -> list[str]:
    """Return the threat models in which another library's best attack is better than ours."""
    pairs = {name: (_best(row.ours), _best(row.others)) for name, row in found.items()}
    return [
        name
        for name, (own, other) in pairs.items()
        if own is None or (other is not None and own[1] > other[1] + SLACK)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("threats", nargs="*", default=list(ROWS), metavar="THREAT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if unknown := sorted(set(options.threats) - set(ROWS)):
        parser.error(f"no threat model {unknown[0]!r}; there are {', '.join(ROWS)}")
    if min(options.seeds, options.samples) < 1:
        parser.error("--seeds and --samples are at least 1")
    warnings.simplefilter("ignore")
    found = measure(options.threats, options.seeds, options.samples)
    text = page(found, options.seeds, options.samples)
    if options.out is not None:
        options.out.write_text(as_json(found, options.seeds, options.samples), encoding="utf-8")
    if options.page is not None:
        options.page.write_text(text, encoding="utf-8")
    print(text)
    if behind := weaker(found):
        sys.exit(f"weaker than another library: {', '.join(behind)}")


if __name__ == "__main__":
    main()
