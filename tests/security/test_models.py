"""Model files that cost memory or time, or want to do more than to compute."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustplug.core.types import TaskInfo
from robustplug.errors import BrokenData, RunError
from robustplug.files import bounds
from robustplug.files.bounds import check_size, check_zip, free_memory
from robustplug.files.folders import check_model_folder
from robustplug.files.reading import Unreadable
from robustplug.plugin.component import Use
from robustplug.subjects.formats.contents import stated_model
from robustplug.subjects.formats.ubj import check_ubj
from robustplug.subjects.loading import load_target

from .hostile import in_time

pytestmark = pytest.mark.table

INFO = TaskInfo(sizes={"test": 9}, shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.5,))
DEEP = b"[" * 100_000 + b"]" * 100_000


class Trap:
    """Write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def opened(path: Path) -> None:
    with in_time(), pytest.raises(RunError) as caught:
        load_target(path, INFO, model=None if path.suffix in (".pt2", ".json", ".ubj") else Use("mlp", {}))
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < 1_000


def archive(path: Path, entries: dict[str, bytes], packed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


def bomb(path: Path, name: str, size: int) -> Path:
    """Write a zip archive of a few kilobytes whose directory states a size."""
    archive(path, {name: b"\0" * 100_000}, packed=True)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2")
    data[place + 24 : place + 28] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a/data.pkl", "a/archive_format", "a/constants.pkl"])
def test_an_archive_that_states_more_than_it_may_is_refused(name: str, tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.pt", name, 2**32 - 2)
    with in_time(), pytest.raises(RunError, match=r"unpacks to 4\.0 GiB|more than half of what is free"):
        load_target(path, INFO, model=Use("mlp", {}))


def test_the_limit_follows_from_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**26 < free_memory() < 2**44
    path = archive(tmp_path / "a.zip", {"a": bytes(10_000)})
    check_zip(path)
    check_size(10_000)
    monkeypatch.setattr(bounds, "free_memory", lambda: 19_000)
    with pytest.raises(Unreadable, match=r"takes 0\.0 MiB of memory, more than half of what is free"):
        check_zip(path)
    with pytest.raises(Unreadable, match="more than half of what is free"):
        check_size(10_000)


def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_MANY", 3)
    with pytest.raises(Unreadable, match="4 entries, of at most 3"):
        check_zip(archive(tmp_path / "a.zip", {str(n): b"" for n in range(4)}))


def test_reading_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w") as entry:
        for _ in range(512):
            entry.write(bytes(2**20))
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from robustplug.files.bounds import check_zip\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: check_zip(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    message, grown = done.stdout.splitlines()
    assert "as only an archive of zeros or a bomb does" in message
    assert int(grown) < 50


def test_pickles_of_more_than_tensors_are_refused(tmp_path: Path) -> None:
    written = tmp_path / "written"
    torch.save({"state_dict": Trap(written)}, tmp_path / "new.pt")
    torch.save(Trap(written), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(written)))
    for name in ("new.pt", "old.pt", "plain.pt"):
        opened(tmp_path / name)
    assert not written.exists()


def test_a_pickle_that_holds_itself_is_refused(tmp_path: Path) -> None:
    table: dict[str, Any] = {"x": 1}
    table["model"] = table
    torch.save(table, tmp_path / "a.pt")
    opened(tmp_path / "a.pt")
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"model": deep}
    (tmp_path / "b.pt").write_bytes(b"\x80\x02" + b"}X\5\0\0\0model" * 5_000 + b"}" + b"s" * 5_000 + b".")
    opened(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02\x8e" + (2**62).to_bytes(8, "little") + b"x.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
    ],
    ids=["length", "marks", "frame"],
)
def test_pickles_that_claim_much_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    opened(tmp_path / "a.pt")


def _safetensors(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' + DEEP + b"}",
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}',
        b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,0]}}',
        b'{"__metadata__":{"robustplug":"' + b"[" * 90_000 + b'"}}',
        b"{" + b'"a":1,' * 10_000 + b'"a":1}',
    ],
    ids=["deep", "terabytes", "negative", "infinite", "deep metadata", "repeated keys"],
)
def test_hostile_safetensors_are_refused(header: bytes, tmp_path: Path) -> None:
    path = _safetensors(tmp_path / "a.safetensors", header)
    assert stated_model(path) is None
    opened(path)


@pytest.mark.parametrize(
    "body",
    [DEEP, b'{"robustplug": {"model": ' + DEEP + b"}}", b"[]", b'{"robustplug": 1}', b"\xff"],
    ids=["deep", "deep inside", "array", "number", "no text"],
)
def test_hostile_configurations_state_nothing(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(body)
    assert stated_model(tmp_path) is None


def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    for place in ("../a.safetensors", "/etc/passwd", "a/b.safetensors", "pytorch_model.bin"):
        body = {"metadata": {}, "weight_map": {"w": place}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(body))
        with pytest.raises(BrokenData, match="as a file of weights"):
            check_model_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "config.json").write_bytes(DEEP)
    with pytest.raises(BrokenData, match=r"config\.json is nested too deeply"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with in_time(), pytest.raises(BrokenData, match="named pipe"):
        check_model_folder(tmp_path)


def test_code_in_a_folder_of_hugging_face_is_not_run(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    written = tmp_path / "written"
    (tmp_path / "code.py").write_text(f"open({str(written)!r}, 'w')\n")
    body = {
        "model_type": "x",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForImageClassification": "code.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(body))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(written)))
    with in_time(), pytest.raises(Exception, match="neither a type of model|trust_remote_code"):
        load_target(f"huggingface-image:{tmp_path}", INFO)
    assert not written.exists()


def _program(entries: dict[str, bytes]) -> dict[str, bytes]:
    return {"a/archive_format": b"pt2", "a/byteorder": b"little", **entries}


@pytest.mark.parametrize(
    "entries",
    [
        {"a/models/model.json": DEEP},
        {"a/models/model.json": b'{"in_spec": "' + b"[" * 90_000 + b'"}'},
        {"a/models/model.json": b'{"target": "torch.ops.aten.from_file.default"}'},
        {"a/models/model.json": b'{"target": "os.system"}'},
        {"a/data/weights/x.pt": pickle.dumps(Trap(Path("written")))},
        {"a/data/weights/model_weights_config.json": b'{"config": {"w": {"use_pickle": true}}}'},
        {"a/data/weights/model_weights_config.json": b'{"config": 1}'},
    ],
    ids=["deep", "deep inside", "reads a file", "another function", "pickle", "names a pickle", "wrong type"],
)
def test_hostile_programs_are_refused(entries: dict[str, bytes], tmp_path: Path) -> None:
    opened(archive(tmp_path / "a.pt2", _program(entries)))


def test_a_bomb_inside_a_program_is_refused(tmp_path: Path) -> None:
    inner = bomb(tmp_path / "inner.pt", "a/data.pkl", 2**32 - 2).read_bytes()
    path = archive(tmp_path / "a.pt2", _program({"a/data/weights/x.pt": inner}))
    with in_time(), pytest.raises(RunError, match=r"unpacks to 4\.0 GiB|more than half of what is free"):
        load_target(path, INFO)


class Writes(nn.Module):
    """A model that reads a file when it is run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the content of a file."""
        return x + torch.from_file("/etc/passwd", False, 10, dtype=torch.float32)


def test_a_script_that_reads_files_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writes()), str(tmp_path / "a.pt"))
    with pytest.raises(RunError, match='refused: its code calls "from_file"'):
        load_target(tmp_path / "a.pt", INFO)


def test_onnx_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper: Any = onnx.helper

    (tmp_path / "secret").write_bytes(bytes(640 * 4))
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    for place in ("../secret", str(tmp_path / "secret"), "link", "/dev/zero"):
        weights = onnx.TensorProto(name="w", data_type=1, dims=[64, 10])
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=place)
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
        ends = [
            [helper.make_tensor_value_info(name, 1, shape)]
            for name, shape in (("x", ["n", 1, 8, 8]), ("y", ["n", 10]))
        ]
        graph = helper.make_graph(nodes, "g", *ends, [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        (inside / "a.onnx").write_bytes(model.SerializeToString())
        with in_time(), pytest.raises(RunError, match="cannot load the ONNX file"):
            load_target(inside / "a.onnx", INFO)


@pytest.mark.parametrize(
    "content", [b"", b"\x0a" + b"\xff" * 9 + b"\1", b"\x3a\xff\xff\xff\x7f", bytes(range(256)) * 4]
)
def test_hostile_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(content)
    with in_time(), pytest.raises(RunError):
        load_target(tmp_path / "a.onnx", INFO)


UBJ: dict[str, bytes] = {
    "deep": b"{L" + (7).to_bytes(8, "big") + b"learner" + b"[" * 100_000 + b'"version"}',
    "long array": b"{L" + (7).to_bytes(8, "big") + b"learner[$d#L" + (2**62).to_bytes(8, "big") + b"version}",
    "negative": b"{L" + (7).to_bytes(8, "big") + b"learner[$d#L" + b"\xff" * 8 + b"version}",
    "JSON": b'{"learner": ' + DEEP + b', "version": 1}',
}


@pytest.mark.parametrize("case", UBJ)
def test_hostile_trees_are_refused_before_their_library_reads_them(case: str, tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    (tmp_path / "a.json").write_bytes(UBJ[case])
    opened(tmp_path / "a.json")


def test_every_cut_of_a_ubj_file_is_seen() -> None:
    pack: Callable[[str], bytes] = lambda text: b"L" + len(text).to_bytes(8, "big") + text.encode()  # noqa: E731
    array = b"[$d#L" + (2).to_bytes(8, "big") + bytes(8)
    whole = (
        b"{"
        + pack("a")
        + array
        + pack("b")
        + b"S"
        + pack("text")
        + pack("c")
        + b"[#i\2TF"
        + pack("d")
        + b"[Z]}"
    )
    check_ubj(whole)
    for size in range(len(whole)):
        with pytest.raises(Unreadable):
            check_ubj(whole[:size])


def test_an_archive_in_memory_is_checked_as_one_on_disk(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.zip", "a", 2**32 - 2)
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(Unreadable):
            check_zip(source)
