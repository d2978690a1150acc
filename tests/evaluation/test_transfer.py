"""Examples of a surrogate model: what is stored is checked before it is used, and else made anew."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from robustplug.core.reporting import Silent
from robustplug.core.types import Feed, View
from robustplug.errors import Refused
from robustplug.evaluation.kept.transfer import Transferred, examples
from robustplug.evaluation.setting import Attack
from robustplug.files.seals import sealed
from robustplug.subjects.subject import Source

from .test_evaluate import EPS, evaluation

pytestmark = pytest.mark.table

FEED = Feed(batch_size=8)


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class Moving:
    """Move each sample to the edge of its ball, and the first sample out of it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: Any, view: View, vicinity: Any) -> View:
        self.calls += 1
        sign = torch.randn(view.x.shape, generator=step.rng).sign()
        x = (view.x + 0.99 * EPS * sign).clamp(0, 1)
        x[:1] = x[:1] * 0.1
        return view.replace(x=x)

    def cost(self, target: Any) -> Any:
        return target


def transferred(folder: Path, seed: int = 0) -> tuple[Transferred, int, list[str]]:
    """Return the examples, the number of batches that were attacked, and the warnings."""
    subject, said, move = evaluation(), Warned(), Moving()
    subject = dataclasses.replace(subject, reporter=said, seed=seed)
    source = Source("plain", subject.model, folder, "0" * 64)
    found = examples(subject, Attack("moving", {"use": "moving"}, move), source, "test", FEED)
    return found, move.calls, said.warnings


def parts(found: Transferred) -> list[list[float]]:
    return [found.part(number)[1].flatten().tolist() for number in range(len(found.files))]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[list[float]]]:
    """The files of a transfer attack, by name, and its examples."""
    folder = tmp_path_factory.mktemp("stored")
    found, calls, warnings = transferred(folder)
    assert calls >= 3
    assert warnings == []
    again, calls, warnings = transferred(folder)
    assert (parts(again), calls, warnings) == (parts(found), 0, [])
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files, parts(found)


def rewritten(change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return a damage that changes the tensors of a file, or its seal."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors, seal = load(data), json.loads(header["__metadata__"]["seal"])
        changed = change(tensors, seal)
        seal = seal if changed is None else changed
        path.write_bytes(save(tensors, {"seal": json.dumps(seal)} if seal else {}))

    return damage


def put(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def change(tensors: dict[str, Tensor], _: Any) -> None:
        tensors[name] = value(tensors[name]).contiguous()

    return rewritten(change)


def place(**changes: Any) -> Callable[[Path], None]:
    """Return a damage that states another place, and seals it anew."""
    return rewritten(lambda _, seal: sealed(seal, **{**seal["seal"]["belongs"], **changes}))


def claims(**changes: Any) -> Callable[[Path], None]:
    """Return a damage that states something else, and seals it anew."""
    return rewritten(lambda _, seal: sealed({**seal, **changes}, **seal["seal"]["belongs"]))


def another(path: Path) -> None:
    path.write_bytes(path.with_name("00001-0.safetensors").read_bytes())


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "grey images": put("x", lambda x: torch.full_like(x, 0.5)),
    "clean images": put("x", lambda x: x * 0 + 0.25),
    "NaN": put("x", lambda x: x * torch.nan),
    "infinite": put("x", lambda x: x + torch.inf),
    "integers": put("x", lambda x: (x * 255).to(torch.uint8)),
    "doubles": put("x", lambda x: x.double()),
    "another shape": put("x", lambda x: x.flatten(1)),
    "fewer": put("x", lambda x: x[:-1]),
    "rows in another order": put("x", lambda x: x.flip(0)),
    "outside of the ball": put("x", lambda x: 1 - x),
    "outside of the range": put("x", lambda x: x + 7),
    "other indices": put("index", lambda index: index + 1),
    "negative indices": put("index", lambda index: -index),
    "indices as numbers": put("index", lambda index: index.float()),
    "indices in another order": put("index", lambda index: index.flip(0)),
    "no index": rewritten(lambda tensors, _: tensors.__delitem__("index")),
    "more tensors": rewritten(lambda tensors, _: tensors.update(y=torch.zeros(3))),
    "no seal": rewritten(lambda _, seal: {}),
    "a changed seal": rewritten(lambda _, seal: {**seal, "legal": 999}),
    "a seal that is a list": rewritten(lambda _, seal: [1]),
    "another batch": another,
    "another place": place(batch=1),
    "another process": place(process=1),
    "another attack": place(examples="0" * 64),
    "another count": claims(legal=0),
    "another digest": claims(sha256="0" * 64),
    "other samples": claims(samples="0" * 64),
    "a flipped bit": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "no safetensors": lambda path: path.write_bytes(b"PK" * 500),
    "a huge header": lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
    "a pipe": fifo,
    "a folder": folder,
}


def copied(stored: tuple[dict[str, bytes], Any], folder: Path) -> Path:
    """Write the stored files, and return the first file of examples."""
    for name, data in stored[0].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return sorted(folder.rglob("*.safetensors"))[0]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_examples_are_named_and_made_anew(name: str, stored: Any, tmp_path: Path) -> None:
    path = copied(stored, tmp_path)
    DAMAGES[name](path)
    found, calls, warnings = transferred(tmp_path)
    assert parts(found) == stored[1]
    assert calls == 1, "the other batches are kept"
    assert len(warnings) == 1, warnings
    assert str(path) in warnings[0]
    assert "made anew" in warnings[0]
    assert "\n" not in warnings[0]
    assert path.read_bytes() == stored[0][str(path.relative_to(tmp_path))]


@pytest.mark.parametrize("text", ["{}", "[", '{"format": 2}', "[" * 9999, None], ids=str)
def test_a_damaged_manifest_is_named_and_written_anew(text: str | None, stored: Any, tmp_path: Path) -> None:
    manifest = copied(stored, tmp_path).with_name("manifest.json")
    before = manifest.read_text()
    manifest.write_text(before.replace("moving", "other") if text is None else text)
    found, calls, warnings = transferred(tmp_path)
    assert (parts(found), calls, len(warnings)) == (stored[1], 0, 1)
    assert str(manifest) in warnings[0]
    assert manifest.read_text() == before


def test_a_folder_in_the_place_of_the_manifest_is_put_aside(stored: Any, tmp_path: Path) -> None:
    manifest = copied(stored, tmp_path).with_name("manifest.json")
    before = manifest.read_text()
    manifest.unlink()
    manifest.mkdir()
    found, calls, warnings = transferred(tmp_path)
    assert (parts(found), calls, len(warnings)) == (stored[1], 0, 1)
    assert manifest.read_text() == before


def test_another_seed_has_its_own_examples(stored: Any, tmp_path: Path) -> None:
    copied(stored, tmp_path)
    found, calls, warnings = transferred(tmp_path, seed=1)
    assert calls > 1
    assert warnings == []
    assert parts(found) != stored[1]


def test_examples_stay_on_the_disk_and_must_stay_as_they_are(tmp_path: Path) -> None:
    found, _, _ = transferred(tmp_path)
    path, _ = found.files[1]
    path.write_bytes(found.files[0][0].read_bytes())
    with pytest.raises(Refused, match="were changed while the row ran"):
        found.part(1)
