"""Data files and folders that are endless, claim much, hold other things, or lead elsewhere."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import robustplug
from robustplug.builtin.tasks import image_folder
from robustplug.builtin.tasks.arrays import tables
from robustplug.builtin.tasks.torchvision_sets import read_idx
from robustplug.builtin.tasks.webdataset import find_shards
from robustplug.errors import BrokenData
from robustplug.files.bounds import check_size
from robustplug.recipe.errors import RecipeError
from robustplug.subjects.data.pictures import check_picture, read_picture

from .hostile import NO_FILES, in_time
from .test_models import Trap, bomb

pytestmark = pytest.mark.table


def arrays(path: Path, **options: Any) -> None:
    """Build the task of a file, which must be refused in one sentence that names it."""
    with in_time(), pytest.raises((ValueError, RecipeError)) as caught:
        robustplug.build("task", "arrays", path=str(path), **options)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1_000


def npy(shape: str, kind: str = "<f4", more: bytes = b"") -> bytes:
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + more


ARRAYS: dict[str, bytes] = {
    "terabytes": npy("(1000000000000, 8)"),
    "overflow": npy("(4611686018427387904, 4)"),
    "negative": npy("(-1, 8)"),
    "objects": npy("(2, 2)", "|O", pickle.dumps([1, 2, 3, 4])),
    "code in the header": npy("__import__('os').getpid()"),
    "deep header": b"\x93NUMPY\1\0" + struct.pack("<H", 60_000) + b"(" * 60_000,
    "archive": b"PK\3\4" + bytes(99),
    "pickle": pickle.dumps([1, 2]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_hostile_arrays_are_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(ARRAYS[case])
    arrays(tmp_path / "a.npy", label=0)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.npy").write_bytes(ARRAYS[case])
    np.save(folder / "y.npy", np.arange(4))
    arrays(folder)
    np.savez(tmp_path / "a.npz", y=np.arange(4))
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("x.npy", ARRAYS[case])
    arrays(tmp_path / "a.npz")


def test_a_billion_values_of_no_bytes_are_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy("(1000000000, 2)", "<U0"))
        archive.writestr("y.npy", npy("(1000000000,)", "<U0"))
    arrays(tmp_path / "a.npz")


def test_an_archive_bomb_of_arrays_is_refused(tmp_path: Path) -> None:
    arrays(bomb(tmp_path / "a.npz", "x.npy", 2**32 - 2))


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind not in ("folder", "long name")])
def test_what_is_no_file_inside_a_folder_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    NO_FILES[kind](folder / "x.npy")
    np.save(folder / "y.npy", np.arange(4))
    arrays(folder)


def test_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustplug.files.tables._LONGEST", 10_000)
    (tmp_path / "a.csv").write_text("x,y\n1,0\n" + "1," * 10_000)
    arrays(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("1," * 10_000)
    arrays(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text('x,y\n1,"' + "a\n" * 200_000)
    arrays(tmp_path / "c.csv")


def test_a_table_that_states_too_many_rows_is_refused(tmp_path: Path) -> None:
    """A column of one value may have any number of rows in a few bytes."""
    pyarrow: Any = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    schema = pyarrow.schema([(name, pyarrow.float32()) for name in ("x", "y")])
    column = pyarrow.array(np.zeros(1_000, np.float32))
    data = pyarrow.table([column, column], schema)
    parquet.write_table(data, tmp_path / "a.parquet")
    stated: list[int] = []

    def check(size: int, what: str) -> None:
        stated.append(size)
        check_size(2**60, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "check_size", check)
        arrays(tmp_path / "a.parquet")
    assert stated == [1_000 * 2 * 8]


def _idx(*shape: int, content: bytes = b"") -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


IDX: dict[str, bytes] = {
    "terabytes": _idx(2**32 - 1, 2**32 - 1),
    "more than the file": _idx(1_000, 28, 28),
    "less than the file": _idx(2, content=b"123"),
    "many dimensions": _idx(*[2**32 - 1] * 255),
    "no dimensions": _idx(content=b"1"),
    "empty": b"",
}


@pytest.mark.parametrize("case", IDX)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_idx_files_are_refused(case: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(IDX[case]) if packed else IDX[case])
    with in_time(), pytest.raises(BrokenData, match="is not a complete idx file"):
        read_idx(path)


def test_a_packed_file_is_read_no_further_than_its_header_states(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=31)
    with (tmp_path / "a.gz").open("wb") as file:
        file.write(packer.compress(_idx(4, content=b"1234")))
        for _ in range(64):
            file.write(packer.compress(bytes(2**20)))
        file.write(packer.flush())
    with in_time(10), pytest.raises(BrokenData, match="is not a complete idx file of bytes"):
        read_idx(tmp_path / "a.gz")


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1_000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 10_000), (65_535, 65_535)])
def test_a_picture_of_too_many_pixels_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(*size))
    jpeg = io.BytesIO()
    Image.new("L", (8, 8)).save(jpeg, "JPEG")
    data = bytearray(jpeg.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", min(size[1], 65_535), min(size[0], 65_535))
    (tmp_path / "a.jpg").write_bytes(data)
    for name in ("a.png", "a.jpg"):
        for read in (check_picture, read_picture):
            with in_time(), pytest.raises(BrokenData, match=f"the picture .*{name} cannot be read"):
                read(tmp_path / name)


def test_a_picture_that_needs_another_program_is_refused(tmp_path: Path) -> None:
    """Pillow gives EPS to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", "EPS")
    for read in (check_picture, read_picture):
        with pytest.raises(BrokenData, match="no picture of a known format"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind != "folder"])
def test_what_is_no_file_is_no_picture(kind: str, tmp_path: Path) -> None:
    path = NO_FILES[kind](tmp_path / "a.png")
    for read in (check_picture, read_picture):
        with in_time(), pytest.raises(BrokenData, match="cannot be read"):
            read(path)


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name / "in").mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / "in" / f"{number}.png")
        for number in range(3):
            (tmp_path / name / "in" / f"up{number}").symlink_to(tmp_path / name)
            (tmp_path / name / f"in{number}").symlink_to("in")
    with in_time():
        task = robustplug.build("task", "image-folder", root=str(tmp_path), workers=0)
    assert sum(task.info.sizes.values()) == 20
    assert image_folder.ENDINGS


@pytest.mark.parametrize(
    "path",
    ["{0..999999999}.tar", "{0..9999}-{0..9999}.tar", "a{0..99999999}*.tar", "/**/*.tar", "{0..9}" * 40],
)
def test_a_path_that_stands_for_too_many_files_is_refused(path: str) -> None:
    with in_time(5), pytest.raises(ValueError, match="stands for more than 100000 files"):
        list(find_shards(path))


def _tar(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as made:
        for entry in entries:
            made.addfile(entry, io.BytesIO(bytes(min(entry.size, 1_000))) if entry.size <= 1_000 else None)
    return path


def test_hostile_shards_are_refused(tmp_path: Path) -> None:
    large = tarfile.TarInfo("a.png")
    large.size = 2**60
    label = tarfile.TarInfo("a.cls")
    label.size = 2**60
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    out = tarfile.TarInfo("../../c.png")
    broken = tmp_path / "e.tar"
    broken.write_bytes(gzip.compress(bytes(10_000)))
    paths = [_tar(tmp_path / f"{n}.tar", *own) for n, own in enumerate([(large,), (label,), (link,), (out,)])]
    for path in (*paths, broken):
        with in_time(), pytest.raises((ValueError, RecipeError)) as caught:
            robustplug.build("task", "webdataset", train=str(path), workers=0)
        assert len(str(caught.value)) < 1_500
    assert not (tmp_path.parent / "c.png").exists()


def test_pickled_batches_of_cifar_are_not_read(tmp_path: Path) -> None:
    written = tmp_path / "written"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Trap(written)))
    with in_time(), pytest.raises(ValueError, match="not found or corrupted"):
        robustplug.build("task", "cifar10", root=str(tmp_path))
    assert not written.exists()


def test_a_data_set_with_code_or_pickles_is_not_run(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    written = tmp_path / "written"
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({os.fspath(written)!r}, 'w')\n")
    (folder / "train.pkl").write_bytes(pickle.dumps(Trap(written)))
    with in_time(), pytest.raises(ValueError, match="cannot be loaded"):
        robustplug.build("task", "huggingface", name=str(folder))
    assert not written.exists()
