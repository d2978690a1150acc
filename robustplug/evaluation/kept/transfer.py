"""Transfer attacks: adversarial examples created on a surrogate model and run on another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.calling.meter import Meter
from ...core.random import derive, isolated, stream
from ...core.step import Step
from ...core.types import Batch, Cost, Feed, Split, View
from ...errors import Refused
from ...files.reading import Unreadable, parse_json, read_bytes, read_json
from ...files.seals import opened, sealed
from ...runs.folder import json_text, put_aside, write_atomic, write_json, writing
from ..setting import Attack, Setting, plain_objective

if TYPE_CHECKING:
    from ...core.protocols import Vicinity
    from ...subjects.subject import Source

EXAMPLES, MANIFEST = "examples", "manifest.json"
# Bytes of a file that no batch of examples reaches.
_LARGEST = 64 * 2**30


class Transferred:
    """Return existing examples by the index of each sample; they stay on the disk, however many there are.

    Args:
        parts: index, examples and file of each batch.
    """

    def __init__(self, parts: Iterator[tuple[Tensor, Tensor, Path]]) -> None:
        self.files: list[tuple[Path, str]] = []
        self._places: dict[int, int] = {}
        self._newest: tuple[int, Tensor, dict[int, int]] | None = None
        for index, x, path in parts:
            self._places.update(dict.fromkeys(index.tolist(), len(self.files)))
            self.files.append((path, _digest(index, x)))

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        """Return the view, moved to the examples of its samples.

        Raises:
            Refused: a file was changed since it was read and checked.
        """
        found = [self._example(sample) for sample in view.index.tolist()]
        return view.replace(x=torch.stack(found).to(view.x.device, view.x.dtype))

    def _example(self, sample: int) -> Tensor:
        number = self._places[sample]
        if self._newest is None or self._newest[0] != number:
            index, x = self.part(number)
            self._newest = number, x, {each: row for row, each in enumerate(index.tolist())}
        _, x, rows = self._newest
        return x[rows[sample]]

    def part(self, number: int) -> tuple[Tensor, Tensor]:
        """Return index and examples of a batch.

        Raises:
            Refused: its file was changed since it was read and checked.
        """
        path, digest = self.files[number]
        try:
            _, index, x = _read(path)
            if _digest(index, x) == digest:
                return index, x
        except (FileNotFoundError, Unreadable):
            pass
        raise Refused(f"the examples {path} were changed while the row ran: evaluate again")

    def cost(self, target: Cost) -> Cost:
        """Return no cost: the examples already exist."""
        return Cost(0, 0)


def examples(evaluation: Setting, attack: Attack, source: Source, split: Split, feed: Feed) -> Transferred:
    """Create an attack's examples on a surrogate model, or read existing ones.

    They are stored in `source.folder`/examples/KEY: a manifest and a safetensors file for each batch, so
    that a killed evaluation resumes with the next batch. KEY is a hash of everything that they depend on.
    Examples that were changed, or are of other samples, are named and created anew.

    Raises:
        Refused: the attack cannot be run on the surrogate model.
        RunError: the folder cannot be written.
    """
    if attack.perturbation is None:
        raise Refused("a transfer row needs an attack")
    manifest = json.loads(json_text(_manifest(evaluation, attack, source, split, feed)))
    key = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    folder = source.folder / EXAMPLES / key[:16]
    with writing(f"the examples in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if evaluation.processes.main and not _is_manifest(folder / MANIFEST, manifest, key, evaluation):
            write_json(folder / MANIFEST, sealed(manifest, examples=key))
    return Transferred(_Maker(evaluation, attack, source, folder, key).parts(split, feed))


def _manifest(
    evaluation: Setting, attack: Attack, source: Source, split: Split, feed: Feed
) -> dict[str, Any]:
    return {
        "format": 2,
        "source": {"name": source.name, "weights": source.identity},
        "attack": dict(attack.options),
        "threat": dict(attack.threat),
        "data": {**evaluation.identity.get("data", {}), "split": split, "samples": feed.samples},
        "batches": {"size": feed.batch_size, "processes": feed.world},
        "seed": evaluation.seed,
    }


def _is_manifest(path: Path, manifest: Mapping[str, Any], key: str, evaluation: Setting) -> bool:
    """Return whether a file is this manifest; warn if it is another or damaged."""
    try:
        if opened(read_json(path)) == (manifest, {"examples": key}):
            return True
        problem = "is of other examples"
    except FileNotFoundError:
        return False
    except Unreadable as error:
        problem = str(error)
    _make_way(path)
    evaluation.reporter.warn(f"{path} {problem}: it is written anew")
    return False


def _make_way(path: Path) -> None:
    """Rename a folder that is in the place of a file."""
    if path.is_dir():
        put_aside(path, "unused")


@dataclass
class _Maker:
    """Create the examples of an attack on a surrogate model, batch by batch, or read existing ones."""

    evaluation: Setting
    attack: Attack
    source: Source
    folder: Path
    key: str

    def parts(self, split: Split, feed: Feed) -> Iterator[tuple[Tensor, Tensor, Path]]:
        """Yield index, examples and file of each batch of this process."""
        evaluation = self.evaluation
        size = min(evaluation.task.info.sizes[split], feed.samples or evaluation.task.info.sizes[split])
        done = 0
        with dataclasses.replace(evaluation, model=self.source.module).prepared():
            for number, batch in enumerate(evaluation.task.batches(split, feed)):
                part = self._known(batch, number)
                if part is None:
                    part = self._make(batch, number)
                    self._write(batch, number, *part)
                done += len(batch)
                if evaluation.processes.main:
                    label = f"{self.attack.label}: making examples"
                    evaluation.reporter.attack(label, min(done * feed.world, size), size)
                yield *part, self._path(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}-{self.evaluation.processes.rank}.safetensors"

    def _step(self, batch: Batch, number: int) -> Step:
        evaluation, path = self.evaluation, self._random(number)
        rng = stream(evaluation.seed, *path, device=evaluation.processes.device)
        objective = plain_objective(evaluation.loss)
        step = Step(self.source.module, objective, evaluation.task, batch, rng, meter=Meter())
        step.seed = derive(evaluation.seed, "transfer", self.source.identity)
        step.iterations = evaluation.iterations
        return step

    def _random(self, number: int) -> tuple[str | int, ...]:
        return ("transfer", self.source.identity, number, self.evaluation.processes.rank)

    def _make(self, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        assert self.attack.perturbation is not None
        evaluation = self.evaluation
        vicinity = self.attack.vicinity or evaluation.vicinity
        path = (*self._random(number), "global")
        with isolated(derive(evaluation.seed, *path), evaluation.processes.device):
            moved = self.attack.perturbation(self._step(batch, number), View.of(batch, "adv"), vicinity)
        # The evaluation takes them in this type, too.
        return batch.index.cpu(), moved.x.detach().to("cpu", batch.x.dtype).contiguous()

    def _seal(self, batch: Batch, number: int, index: Tensor, x: Tensor) -> dict[str, Any]:
        """Return what is stored with the examples of a batch, and must be the same when they are read."""
        clean = batch.x.detach().cpu()
        legal = self._legal(batch, number, x)
        body = {"sha256": _digest(index, x), "samples": _digest(index, clean), "legal": legal}
        process = self.evaluation.processes.rank
        return sealed(body, examples=self.key, batch=number, process=process)

    def _legal(self, batch: Batch, number: int, x: Tensor) -> int:
        """Return how many examples are in the threat model; attacks may leave it, and are judged later."""
        vicinity = self.attack.vicinity or self.evaluation.vicinity
        radii = self._step(batch, number).radii(View.of(batch, "adv"), vicinity)
        return int(vicinity.contains(x.to(batch.x.device), batch.x, radii).sum())

    def _write(self, batch: Batch, number: int, index: Tensor, x: Tensor) -> None:
        from safetensors.torch import save

        path, seal = self._path(number), self._seal(batch, number, index, x)
        with writing(f"the examples {path}"):
            data = save({"index": index.contiguous(), "x": x}, {"seal": json.dumps(seal)})
            _make_way(path)
            write_atomic(path, data)

    def _known(self, batch: Batch, number: int) -> tuple[Tensor, Tensor] | None:
        """Return the examples of a batch if they are stored and sound; warn if they are not sound."""
        path = self._path(number)
        try:
            stored, index, x = _read(path)
            if index.dtype != torch.int64 or index.tolist() != batch.index.tolist():
                raise Unreadable("is of other samples")
            if x.shape != batch.x.shape or x.dtype != batch.x.dtype:
                raise Unreadable("is of another shape or type than the samples")
            if x.is_floating_point() and not bool(x.isfinite().all()):
                raise Unreadable("contains numbers that are not finite")
            expected = self._seal(batch, number, index, x)
            if stored["seal"]["belongs"] != expected["seal"]["belongs"]:
                raise Unreadable("belongs to another attack, model or batch")
            if stored != expected:
                raise Unreadable("does not match its seal: it was changed after it was written")
        except FileNotFoundError:
            return None
        except Unreadable as error:
            self.evaluation.reporter.warn(f"the examples {path}: the file {error}; they are made anew")
            return None
        return index, x


def _read(path: Path) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return the seal, the index and the examples of a file.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is not a safetensors file with these parts.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path, _LARGEST)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Unreadable(f"is no safetensors file ({error})") from error
    # `load` has checked the header.
    header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    seal = parse_json((header.get("__metadata__") or {}).get("seal", "null"))
    opened(seal)
    if tensors.keys() != {"index", "x"}:
        raise Unreadable("does not hold index and x")
    return seal, tensors["index"], tensors["x"]


def _digest(index: Tensor, x: Tensor) -> str:
    """Return the SHA-256 of sample indices and inputs, types and shapes included."""
    found = hashlib.sha256()
    for value in (index, x):
        found.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
