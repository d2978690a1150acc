"""A file that cannot be used gives one message, which says what it is and what to do."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustplug.core.types import TaskInfo
from robustplug.errors import RunError
from robustplug.subjects.loading import load_target

from .conftest import WRITERS
from .models import INFO, SMALL, bare, small, write_onnx

Programs = Callable[..., Path]


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(RunError, match=message) as caught:
        load_target(path, INFO, **options)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt", "a.pt2", "a.onnx", "a"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: download"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>" * 9, "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"PK\x03\x04" + b"\0" * 99, "damaged or cut off"),
    ],
)
def test_what_downloads_leave(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, message, model=SMALL)


def test_what_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "a.pt", "there is no file")
    refused(tmp_path, "is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"1234")
    path.chmod(0)
    refused(path, "cannot be read: Permission denied")


def test_unknown_content_lists_what_is_known(tmp_path: Path) -> None:
    for name in ("model.h5", "model.pt", "model"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)
        refused(tmp_path / name, r"safetensors, \.pth .*\.pt2.*\.onnx")
    (tmp_path / "a.safetensors").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)
    refused(tmp_path / "a.safetensors", "is not a safetensors file", model=SMALL)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model/readme.txt", "nothing")
    refused(tmp_path / "a.zip", "unpack it first")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_cut_off_state_dicts(share: float, tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors")
    torch.save(small().state_dict(), tmp_path / "a.pth")
    torch.save(small().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in list(tmp_path.iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        refused(path, "download or save it again", model=SMALL)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_cut_off_programs(name: str, share: float, programs: Programs, tmp_path: Path) -> None:
    data = programs(name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    refused(tmp_path / name, "damaged or cut off")


def rewritten(source: Path, path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "lost", ["data.pkl", "conv.py", "data/3", "models/model.json", "weights_config.json"]
)
def test_programs_with_lost_parts(lost: str, programs: Programs, tmp_path: Path) -> None:
    for name in ("script.pt", "fixed.pt2"):
        with zipfile.ZipFile(programs(name)) as archive:
            there = any(part.endswith(lost) for part in archive.namelist())
        if there:
            path = rewritten(
                programs(name), tmp_path / name, lambda part, data: None if part.endswith(lost) else data
            )
            refused(path, "cannot be loaded|damaged")


@pytest.mark.parametrize("old", [False, True])
def test_pickled_objects_are_refused(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(small(), path, _use_new_zipfile_serialization=not old)
    refused(path, r"could run any code.*save_file\(model\.state_dict", model=SMALL)


class Boom:
    """Unpickling this runs a command."""

    ran: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.ran),))


def test_pickles_do_not_run(tmp_path: Path) -> None:
    boom = Boom()
    boom.ran = tmp_path / "ran"
    torch.save({"a": boom}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "could run any code", model=SMALL)
    assert not boom.ran.exists()


def test_garbage(tmp_path: Path) -> None:
    data = torch.randint(0, 256, (600,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for start in (b"\x80", b"\x80\x02", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."):
        (tmp_path / "a.pth").write_bytes(start + data.numpy().tobytes())
        refused(tmp_path / "a.pth", "cannot be read|could run any code", model=SMALL)


def test_damaged_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = write_onnx(tmp_path / "a.onnx", bare())
    data = path.read_bytes()
    for broken in (data[:50], data[: len(data) // 2], b"hello world", bytes(100)):
        path.write_bytes(broken)
        refused(path, "onnxruntime cannot load the ONNX file")


def test_programs_for_other_images(programs: Programs, tmp_path: Path) -> None:
    other = TaskInfo({}, shape=(3, 32, 32), classes=10)
    for name in ("fixed.pt2", "free.pt2"):
        with pytest.raises(RunError, match=r"shape \(1, 8, 8\), but those of the task are \(3, 32, 32\)"):
            load_target(programs(name), other)
    for name in ("script.pt", "trace.ts"):
        with pytest.raises(RunError, match=r"cannot take 2 images of shape \(3, 32, 32\)"):
            load_target(programs(name), other)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    with pytest.raises(RunError, match=r"shape \(1, 8, 8\), but those of the task are \(3, 32, 32\)"):
        load_target(write_onnx(tmp_path / "a.onnx", bare()), other)


def test_components_and_weights_that_nothing_is_done_with(programs: Programs) -> None:
    refused(programs("script.pt"), "leave out --model", model=SMALL)
    with pytest.raises(RunError, match="leave them out"):
        load_target(programs("script.pt"), INFO, weights="DEFAULT")
    with pytest.raises(RunError, match="leave out --model"):
        load_target(small(), INFO, model=SMALL)


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10] + y


class Whole(nn.Module):
    """Takes the pixels of batches whose size is a multiple of 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10].reshape(-1, 2, 10).flip(1).reshape(-1, 10)


def test_exports_that_are_no_classifiers_of_images() -> None:
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(RunError, match="takes 2 inputs"):
        load_target(torch.export.export(TwoInputs(), (x, torch.rand(4, 10))), INFO)
    whole = torch.export.export(nn.Flatten(), (torch.zeros(2, 1, 8, 8, dtype=torch.int64),))
    with pytest.raises(RunError, match=r"takes torch\.int64 images"):
        load_target(whole, INFO)
    even = torch.export.export(Whole(), (x,), dynamic_shapes=({0: 2 * torch.export.Dim("pairs")},))
    with pytest.raises(RunError, match="export it with a dynamic batch size"):
        load_target(even, INFO)
