"""The task arrays: files of arrays and tables, their splits, labels and bounds."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustplug.core.types import Feed
from robustplug.errors import BrokenData, DataMissing
from robustplug.plugin.host import registry
from robustplug.recipe.errors import RecipeError
from robustplug.run import build
from robustplug.subjects.data.task import ArrayTask
from robustplug.testing.kit import run_checks

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)
Y = np.arange(60) % 3
TABLE = RNG.random((60, 4)).astype(np.float32).round(3)
NAMES = np.array(["ash", "birch", "cedar"])


def arrays(**options: Any) -> ArrayTask:
    task: ArrayTask = build(
        "task", "arrays", **{k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    )
    return task


def everything(task: ArrayTask) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all inputs and labels, sorted by input."""
    batches = [batch for split in task.info.sizes for batch in task.batches(split, Feed())]
    x, y = torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])
    order = sorted(range(len(x)), key=lambda at: x[at].flatten().tolist())
    return x[order], y[order]


def assert_holds(task: ArrayTask, x: Any, y: Any) -> None:
    inputs, labels = everything(task)
    order = sorted(range(len(x)), key=lambda at: np.asarray(x[at]).flatten().tolist())
    assert torch.allclose(inputs, torch.tensor(np.asarray(x)[order]).float())
    assert labels.tolist() == np.asarray(y)[order].tolist()


def write_npz(path: Path, **found: Any) -> Path:
    np.savez(path, **found)
    return path


def write_folder(path: Path, **found: Any) -> Path:
    path.mkdir()
    for name, value in found.items():
        np.save(path / f"{name}.npy", value)
    return path


def write_safetensors(path: Path, **found: Any) -> Path:
    from safetensors.numpy import save_file

    save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, path)
    return path


def write_csv(path: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "a.npz": write_npz,
    "folder": write_folder,
    "a.safetensors": write_safetensors,
}
NAMED = pytest.mark.parametrize("name", WRITERS)


# Files of arrays


@NAMED
def test_images_are_split_by_shares_and_stratified(tmp_path: Path, name: str) -> None:
    task = arrays(path=WRITERS[name](tmp_path / name, x=X, y=Y), validation=0.2, test=0.3)
    assert task.info.sizes == {"train": 30, "validation": 12, "test": 18}
    assert (task.info.shape, task.info.classes, task.info.bounds) == ((1, 6, 5), 3, (0.0, 1.0))
    for split in task.info.sizes:
        assert len(set(task.labels(split).bincount().tolist())) == 1
    assert_holds(task, X[:, None] / 255, Y)


@NAMED
@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train.x", "train.y", "test.x", "test.y"),
        ("data-train", "targets-train", "data-test", "targets-test"),
    ],
)
def test_the_names_of_arrays_may_state_their_split(tmp_path: Path, name: str, names: Sequence[str]) -> None:
    found = dict(zip(names, (X[:40], Y[:40], X[40:], Y[40:]), strict=True))
    path = WRITERS[name](tmp_path / name, **found, ids=np.arange(60))
    task = arrays(path=path)
    assert task.info.sizes == {"train": 36, "validation": 4, "test": 20}
    (batch,) = task.batches("test", Feed())
    assert torch.equal(batch.x, torch.tensor(X[40:, None]) / 255)
    assert batch.y.tolist() == Y[40:].tolist()


@pytest.mark.parametrize("mark", ["val", "valid", "validation", "VAL"])
def test_all_three_splits_in_one_file(tmp_path: Path, mark: str) -> None:
    """The layout of MedMNIST: labels (N, 1)."""
    found = {"train": (X[:30], Y[:30]), mark: (X[30:45], Y[30:45]), "test": (X[45:], Y[45:])}
    flat = {f"{s}_images": x for s, (x, _) in found.items()} | {
        f"{s}_labels": y[:, None] for s, (_, y) in found.items()
    }
    task = arrays(path=write_npz(tmp_path / "a.npz", **flat))
    assert task.info.sizes == {"train": 30, "validation": 15, "test": 15}


def test_splits_may_be_files(tmp_path: Path) -> None:
    train, other = (
        write_npz(tmp_path / "a.npz", x=X[:40], y=Y[:40]),
        write_npz(tmp_path / "b.npz", x=X[40:], y=Y[40:]),
    )
    assert arrays(train=train, test=other).info.sizes == {"train": 36, "validation": 4, "test": 20}
    assert arrays(train=train, validation=other).info.sizes == {"train": 32, "validation": 20, "test": 8}
    only = arrays(test=other)
    assert only.info.sizes == {"test": 20}
    both = write_npz(tmp_path / "c.npz", x_train=X[:40], y_train=Y[:40], x_test=X[40:], y_test=Y[40:])
    assert arrays(test=both).info.sizes == {"test": 20}


def test_arrays_with_names_of_their_own(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", pictures=X, kind=Y, other=Y)
    with pytest.raises(
        ValueError, match=r"'pictures', 'kind', 'other'.*which holds the inputs.*task\.features"
    ):
        arrays(path=path)
    assert_holds(arrays(path=path, features=["pictures"], label="kind"), X[:, None] / 255, Y)
    with pytest.raises(ValueError, match="no array 'knid'"):
        arrays(path=path, features=["pictures"], label="knid")
    with pytest.raises(ValueError, match="no table"):
        arrays(path=path, features=["pictures", "other"], label="kind")
    with pytest.raises(ValueError, match="no table"):
        arrays(path=path, label=1)
    named = write_npz(
        tmp_path / "b.npz", pic_train=X[:40], kind_train=Y[:40], pic_test=X[40:], kind_test=Y[40:]
    )
    assert arrays(path=named, features=["pic"], label="kind").info.sizes["test"] == 20


def test_arrays_without_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X, Y)
    assert_holds(arrays(path=tmp_path / "a.npz"), X[:, None] / 255, Y)


def test_a_split_without_labels_is_named(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=X[:40], y_train=Y[:40], x_test=X[40:])
    with pytest.raises(ValueError, match="split test.*which holds the labels"):
        arrays(path=path)


def test_channels_may_come_last(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
    for name, write in WRITERS.items():
        task = arrays(path=write(tmp_path / name, x=colours, y=Y))
        assert task.info.shape == (3, 6, 5)
        assert_holds(task, colours.transpose(0, 3, 1, 2) / 255, Y)
        assert "became (N, C, H, W)" in task.notes[0]
    first = arrays(path=write_npz(tmp_path / "b.npz", x=colours.transpose(0, 3, 1, 2), y=Y))
    assert (first.info.shape, first.notes) == ((3, 6, 5), ())


def test_a_table_in_a_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.c_[Y, TABLE])
    assert_holds(arrays(path=tmp_path / "t.npy", label=0), TABLE, Y)
    with pytest.raises(ValueError, match=r"label = 5, but .* 5 columns"):
        arrays(path=tmp_path / "t.npy", label=5)
    with pytest.raises(ValueError, match=r"one array of shape \(60, 5\).*task\.label = -1"):
        arrays(path=tmp_path / "t.npy")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(
        ValueError, match=r"one array of shape \(60, 6, 5\): put inputs and labels into one folder"
    ):
        arrays(path=tmp_path / "x.npy", label=0)


class Trap:
    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_nothing_is_unpickled(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    trapped = np.array([Trap(), 1], dtype=object)
    if name == "a.npz":
        np.savez(tmp_path / name, x=trapped, y=Y)
    else:
        np.save(tmp_path / name, trapped)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    for path in (tmp_path / name, tmp_path / "b.npz"):
        with pytest.raises(BrokenData, match="not unpickled"):
            arrays(path=path, label=0 if path.suffix == ".npy" else "y")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.parquet", "folder"])
@pytest.mark.parametrize("keep", [0, 40, 300])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        write_parquet(path, a=TABLE[:, 0], label=Y)
    else:
        WRITERS[name](path, x=X, y=Y)
    cut = path / "x.npy" if path.is_dir() else path
    cut.write_bytes(cut.read_bytes()[:keep])
    with pytest.raises(BrokenData, match=name):
        arrays(path=path)


def test_missing_files_and_formats(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"task\.path.*task\.train.*task\.test"):
        arrays()
    with pytest.raises(DataMissing, match="no file .*nothing.npz"):
        arrays(path=tmp_path / "nothing.npz")
    with pytest.raises(DataMissing, match=r"no \.npy files"):
        arrays(path=tmp_path)
    (tmp_path / "a.mat").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.mat has another format than \.npz"):
        arrays(path=tmp_path / "a.mat")
    with pytest.raises(RecipeError, match="give one of them"):
        arrays(path=tmp_path / "a", train=tmp_path / "b")


# Tables


def rows(label: int, names: bool = True) -> list[list[Any]]:
    head = ["a", "b", "c", "d"]
    head.insert(label, "label")
    body = [list(map(str, row)) for row in TABLE]
    for row, y in zip(body, Y, strict=True):
        row.insert(label, str(y))
    return [head, *body] if names else body


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("label", [0, 2, 4])
def test_csv_with_names(tmp_path: Path, delimiter: str, label: int) -> None:
    path = write_csv(tmp_path / ("a.tsv" if delimiter == "\t" else "a.csv"), rows(label), delimiter)
    assert_holds(arrays(path=path), TABLE, Y)


def test_csv_without_names_needs_the_number_of_the_label(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", rows(4, names=False))
    with pytest.raises(ValueError, match=r"'0', '1', '2', '3', '4'.*task\.label = -1"):
        arrays(path=path)
    for label in (4, -1, "4"):
        assert_holds(arrays(path=path, label=label), TABLE, Y)


def test_csv_without_names_and_with_classes_by_name(tmp_path: Path) -> None:
    """The file of the iris flowers in the UCI repository."""
    path = write_csv(tmp_path / "iris.csv", [[*map(str, x), NAMES[y]] for x, y in zip(TABLE, Y, strict=True)])
    task = arrays(path=path, label=-1)
    assert task.info.class_names == tuple(NAMES)
    assert_holds(task, TABLE, Y)


def test_csv_columns_are_chosen(tmp_path: Path) -> None:
    table = [["id", *row] for row in rows(4)[:1]] + [[f"row{n}", *row] for n, row in enumerate(rows(4)[1:])]
    path = write_csv(tmp_path / "a.csv", table)
    with pytest.raises(ValueError, match=r"line 2: the column 'id' holds 'row0'.*leave the column out"):
        arrays(path=path)
    assert_holds(arrays(path=path, features=["b", "d"]), TABLE[:, [1, 3]], Y)
    for wrong, message in (
        ({"features": ["a", "bb"]}, "features: .*no column named 'bb'; did you mean"),
        ({"features": ["a", "label"]}, "'label' is the label"),
        ({"label": "lable"}, 'label: .*no column named .lable.; did you mean "label"'),
        ({"label": 9}, r"label = 9, but .* has 6 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            arrays(path=path, **wrong)


def test_columns_without_names_are_those_of_any_other_file(tmp_path: Path) -> None:
    bare = write_csv(tmp_path / "a.csv", rows(4, names=False))
    named = write_csv(tmp_path / "b.csv", rows(4))
    task = arrays(train=bare, test=named, label=-1)
    assert task.info.places == {}
    (batch,) = task.batches("test", Feed(batch_size=len(TABLE)))
    assert np.allclose(batch.x.numpy(), TABLE)


def test_columns_of_files_are_the_same_and_have_names(tmp_path: Path) -> None:
    head, *body = rows(4)
    train = write_csv(tmp_path / "a.csv", [head, *body])
    turned = write_csv(tmp_path / "b.csv", [["b", "a", *head[2:]], *([b, a, *r] for a, b, *r in body)])
    with pytest.raises(ValueError, match="where train has the column 'a', test has 'b'; name the columns"):
        arrays(train=train, test=turned)
    with pytest.raises(ValueError, match="where train has the column 'd', test has 'none'"):
        arrays(train=train, test=write_csv(tmp_path / "c.csv", [[*r[:3], r[4]] for r in rows(4)]))
    task = arrays(train=train, test=turned, features=["a", "d"])
    assert task.info.places == {"a": (0,), "d": (1,)}
    (batch,) = task.batches("test", Feed(batch_size=len(TABLE)))
    assert np.allclose(batch.x.numpy(), TABLE[:, [0, 3]])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "is empty"),
        ("NA", "holds 'NA'"),
        ("nan", "holds 'nan'"),
        ("inf", "no finite number"),
        ("1,5", "'1,5'"),
    ],
)
def test_csv_cells_that_are_no_numbers_are_named(tmp_path: Path, cell: str, message: str) -> None:
    table = rows(4)
    table[7][1] = cell
    with pytest.raises(ValueError, match=rf"a\.csv, line 8: the column 'b' .*{message}|{message}"):
        arrays(path=write_csv(tmp_path / "a.csv", table))


@pytest.mark.parametrize(
    "broken", [b"", b"a,b,label\n", b"a,b,label\n1,2,0\n1,2\n", b"a,label\n1,0\n\xff\xfe,1\n"]
)
def test_csv_files_that_are_no_table(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(broken)
    with pytest.raises(BrokenData, match=r"a\.csv"):
        arrays(path=tmp_path / "a.csv", label=-1)


def test_csv_of_spreadsheets(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, blank lines and quotes."""
    values = np.arange(60) / 64
    body = [f'"{x}",{NAMES[y]}' for x, y in zip(values, Y, strict=True)]
    lines = ["\ufeff" + '"a","label"', *body[:30], "", *body[30:], ","]
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode())
    task = arrays(path=tmp_path / "a.csv")
    assert task.info.class_names == tuple(NAMES)
    assert_holds(task, values[:, None], Y)


def test_a_long_csv_is_read_in_blocks(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [["a", "label"], *([0.5, n % 2] for n in range(9000))])
    assert sum(arrays(path=path).info.sizes.values()) == 9000


def test_parquet(tmp_path: Path) -> None:
    columns = {name: TABLE[:, at] for at, name in enumerate("abcd")}
    path = write_parquet(tmp_path / "a.parquet", **columns, species=NAMES[Y])
    task = arrays(path=path, label="species")
    assert task.info.class_names == tuple(NAMES)
    assert_holds(task, TABLE, Y)
    assert_holds(arrays(path=path, label="species", features=["c"]), TABLE[:, 2:3], Y)
    with pytest.raises(ValueError, match=r"task\.label"):
        arrays(path=path)
    gaps = write_parquet(tmp_path / "b.parquet", a=[0.5, None] * 30, b=NAMES[Y], label=Y)
    with pytest.raises(ValueError, match="'a' is empty in some rows"):
        arrays(path=gaps, features=["a"])
    with pytest.raises(ValueError, match="'b' is of the type string"):
        arrays(path=gaps, features=["b"])


# Labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (NAMES[Y], tuple(NAMES)),
        (np.char.encode(NAMES[Y]), tuple(NAMES)),
        (Y, ()),
        (Y.astype(np.uint8), ()),
        (Y.astype(np.float64), ()),
        (np.eye(3)[Y], ()),
        (Y[:, None], ()),
        (Y.astype(str), ()),
        (Y + 1, ("1", "2", "3")),
        (Y - 1, ("-1", "0", "1")),
        (10 * Y + 5, ("5", "15", "25")),
    ],
    ids=[
        "text",
        "bytes",
        "int",
        "uint8",
        "float",
        "one-hot",
        "column",
        "digits",
        "from-1",
        "signed",
        "sparse",
    ],
)
def test_labels_of_every_kind(tmp_path: Path, labels: Any, names: tuple[str, ...]) -> None:
    task = arrays(path=write_npz(tmp_path / "a.npz", x=X, y=labels))
    assert (task.info.classes, task.info.class_names) == (3, names)
    assert_holds(task, X[:, None] / 255, Y)


def test_classes_are_those_of_all_splits_together(tmp_path: Path) -> None:
    train = write_npz(tmp_path / "a.npz", x=X, y=Y + 1)
    test = write_npz(tmp_path / "b.npz", x=X[Y > 0], y=Y[Y > 0] + 1)
    task = arrays(train=train, test=test)
    assert task.info.class_names == ("1", "2", "3")
    assert set(task.labels("test").tolist()) == {1, 2}


def test_the_number_of_classes_may_be_given(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x=X, y=Y + 1)
    task = arrays(test=path, classes=10)
    assert (task.info.classes, task.info.class_names) == (10, ())
    assert set(task.labels("test").tolist()) == {1, 2, 3}
    for labels in (Y + 1, Y - 1):
        path = write_npz(tmp_path / "b.npz", x=X, y=labels)
        with pytest.raises(ValueError, match="range from .* must lie in 0 to 2"):
            arrays(path=path, classes=3)


def test_one_class_and_unknown_classes_are_refused(tmp_path: Path) -> None:
    one = write_npz(tmp_path / "a.npz", x=X, y=np.zeros(60, int))
    with pytest.raises(ValueError, match="needs two classes"):
        arrays(path=one)
    train = write_npz(tmp_path / "b.npz", x=X[Y < 2], y=NAMES[Y[Y < 2]])
    with pytest.raises(
        ValueError, match="the test samples have classes that the training samples lack: cedar"
    ):
        arrays(train=train, test=write_npz(tmp_path / "c.npz", x=X, y=NAMES[Y]))


@pytest.mark.parametrize("labels", [["a", ""] * 30, [0.5, 1.0] * 30, [0.0, float("nan")] * 30])
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(ValueError, match="label of sample 1|whole numbers"):
        arrays(path=write_npz(tmp_path / "a.npz", x=X, y=np.array(labels)))


@NAMED
@pytest.mark.parametrize("count", [59, 61])
def test_other_numbers_of_labels_than_of_inputs_are_refused(tmp_path: Path, name: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"60 inputs, but {count} labels"):
        arrays(path=WRITERS[name](tmp_path / name, x=X, y=np.arange(count) % 3))


# Bounds


def test_bounds_of_tables(tmp_path: Path) -> None:
    table = TABLE * [1, 10, 100, 1000] - 5
    path = write_npz(tmp_path / "a.npz", x=table, y=Y)
    with pytest.raises(ValueError, match=r'they range from -5 to .*bounds=.*or bounds = "measured"'):
        arrays(path=path)
    task = arrays(path=path, bounds="measured")
    low, high = (np.array(side) for side in task.info.bounds)
    assert np.allclose(low, table.min(0))
    assert np.allclose(high, table.max(0))
    task = arrays(path=path, bounds=[[-5, -5, -5, -5], [5, 10, 100, 1000]])
    assert task.info.bounds == ((-5, -5, -5, -5), (5, 10, 100, 1000))
    assert arrays(path=path, bounds=[-5, 1000]).info.bounds == (-5, 1000)


def test_a_feature_with_one_value_has_no_measured_bounds(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [[*row, "z" if not n else "1"] for n, row in enumerate(rows(4))])
    with pytest.raises(ValueError, match="features: z: always the same value"):
        arrays(path=path, bounds="measured")


def test_bytes_with_bounds_are_not_divided(tmp_path: Path) -> None:
    task = arrays(path=write_npz(tmp_path / "a.npz", x=X, y=Y), bounds=[0, 255])
    assert_holds(task, X[:, None].astype(np.float32), Y)


def test_16_bits_need_their_bounds(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x=X.astype(np.uint16) * 257, y=Y)
    with pytest.raises(ValueError, match=r"range from 0 to 65535.*bounds=\(0, 65535\)"):
        arrays(path=path)
    assert arrays(path=path, bounds=[0, 65535]).info.bounds == (0, 65535)


# Together with the rest


@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_the_conformance_kit_passes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    options: dict[str, Any] = {"path": str(path)}
    if name == "a.csv":
        write_csv(path, rows(4))
        if "mlp" not in registry().names("model"):
            pytest.skip("no model for tables")
    else:
        write_npz(path, x=RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8), y=Y)
    outcomes = run_checks("arrays", "task", options)
    assert [(each.check, each.detail) for each in outcomes if not each.passed or each.skipped] == []


def test_the_split_follows_its_seed(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x=X, y=Y)
    (first,), (again,), (other,) = (
        arrays(path=path, split_seed=seed).batches("test", Feed()) for seed in (0, 0, 1)
    )
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
