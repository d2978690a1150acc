"""Transfer attacks: adversarial examples created on a surrogate model and run on another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.random import derive, isolated, stream
from ..core.step import Meter, Step
from ..core.types import Batch, Cost, Feed, Split, View
from ..errors import Refused, RunError
from ..runs.folder import write_atomic, write_json, writing
from .setting import Attack, Setting, plain_objective

if TYPE_CHECKING:
    from ..core.protocols import Vicinity
    from ..subjects.subject import Source

EXAMPLES, MANIFEST = "examples", "manifest.json"


class Transferred:
    """Return existing examples by the index of each sample.

    Args:
        parts: (index, x) of each file with examples.
    """

    def __init__(self, parts: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.examples: list[Tensor] = []
        self.place: dict[int, tuple[int, int]] = {}
        for index, x in parts:
            for row, sample in enumerate(index.tolist()):
                self.place[sample] = (len(self.examples), row)
            self.examples.append(x)

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view, moved to the examples of its samples."""
        places = [self.place[sample] for sample in view.index.tolist()]
        x = torch.stack([self.examples[part][row] for part, row in places])
        return view.replace(x=x.to(view.x.device, view.x.dtype))

    def cost(self, target: Cost) -> Cost:
        """Return no cost: the examples already exist."""
        return Cost(0, 0)


def examples(evaluation: Setting, attack: Attack, source: Source, split: Split, feed: Feed) -> Transferred:
    """Create an attack's examples on a surrogate model, or read existing ones.

    They are stored in `source.folder`/examples/KEY: a manifest and a safetensors file for each batch, so
    that a killed evaluation resumes with the next batch. KEY is a hash of everything that they depend on.

    Raises:
        Refused: the attack cannot be run on the surrogate model.
        RunError: the folder cannot be written.
    """
    if attack.perturbation is None:
        raise Refused("a transfer row needs an attack")
    manifest = _manifest(evaluation, attack, source, split, feed)
    key = hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()
    folder = source.folder / EXAMPLES / key[:16]
    with writing(f"the examples in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if evaluation.processes.main and not (folder / MANIFEST).is_file():
            write_json(folder / MANIFEST, manifest)
    return Transferred(_parts(evaluation, attack, source, split, feed, folder))


def _manifest(
    evaluation: Setting, attack: Attack, source: Source, split: Split, feed: Feed
) -> dict[str, Any]:
    return {
        "format": 1,
        "source": {"name": source.name, "weights": source.identity},
        "attack": dict(attack.options),
        "threat": dict(attack.threat),
        "data": {**evaluation.identity.get("data", {}), "split": split, "samples": feed.samples},
        "batches": {"size": feed.batch_size, "processes": feed.world},
        "seed": evaluation.seed,
    }


def _parts(
    evaluation: Setting, attack: Attack, source: Source, split: Split, feed: Feed, folder: Path
) -> Iterator[tuple[Tensor, Tensor]]:
    size = min(evaluation.task.info.sizes[split], feed.samples or evaluation.task.info.sizes[split])
    on_source = dataclasses.replace(evaluation, model=source.module)
    done = 0
    with on_source.prepared():
        for number, batch in enumerate(evaluation.task.batches(split, feed)):
            path = folder / f"{number:05d}-{feed.rank}.safetensors"
            part = _read(path, batch)
            if part is None:
                part = _make(on_source, attack, source, batch, number)
                _write(path, *part)
            done += len(batch)
            if evaluation.processes.main:
                label = f"{attack.label}: making examples"
                evaluation.reporter.attack(label, min(done * feed.world, size), size)
            yield part


def _make(
    evaluation: Setting, attack: Attack, source: Source, batch: Batch, number: int
) -> tuple[Tensor, Tensor]:
    assert attack.perturbation is not None
    path = ("transfer", source.identity, number, evaluation.processes.rank)
    device = evaluation.processes.device
    vicinity = attack.vicinity or evaluation.vicinity
    with isolated(derive(evaluation.seed, *path, "global"), device):
        rng = stream(evaluation.seed, *path, device=device)
        objective = plain_objective(evaluation.loss)
        step = Step(source.module, objective, evaluation.task, batch, rng, meter=Meter())
        step.seed = derive(evaluation.seed, "transfer", source.identity)
        moved = attack.perturbation(step, View.of(batch, "adv"), vicinity)
    return batch.index.cpu(), moved.x.detach().cpu().contiguous()


def _write(path: Path, index: Tensor, x: Tensor) -> None:
    from safetensors.torch import save

    with writing(f"the examples {path}"):
        write_atomic(path, save({"index": index.contiguous(), "x": x}))


def _read(path: Path, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return the examples of a batch, or None if there are none.

    Raises:
        RunError: the file belongs to other samples, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        return None
    try:
        part = load(path.read_bytes())
        index, x = part["index"], part["x"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"the examples {path} cannot be read ({error}); remove {path.parent}") from error
    if index.tolist() != batch.index.tolist() or x.shape != batch.x.shape:
        raise RunError(f"the examples {path} belong to other samples; remove {path.parent}")
    return index, x
