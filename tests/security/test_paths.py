"""Whatever a path leads to, a command answers in one sentence, at once."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest

from .hostile import NAMES, NO_FILES, in_time, refused, run

pytestmark = pytest.mark.table

RUN = Path(__file__).parents[1] / "data" / "run-0.1" / "finished"
DIGITS = ("--task", "digits", "--model", "mlp")

# Commands that read a file or a folder, with {} in its place.
READERS: dict[str, tuple[str, ...]] = {
    "recipe": ("validate", "{}.toml"),
    "suite": ("validate", "--suite", "{}.toml"),
    "study": ("study", "{}.toml", "--list"),
    "train": ("train", "--recipe", "{}.toml"),
    "resume": ("train", "--resume", "{}"),
    "start": ("train", "--recipe", "cat", "--set", "model.from={}.pt"),
    "start of a run": ("train", "--recipe", "cat", "--set", "model.from={}"),
    "weights": ("evaluate", "{}.safetensors", *DIGITS),
    "program": ("evaluate", "{}.pt2", "--task", "digits"),
    "onnx": ("evaluate", "{}.onnx", "--task", "digits"),
    "named weights": ("evaluate", "torchvision:resnet18", "--task", "digits", "--weights", "{}.pth"),
    "model of Hugging Face": ("evaluate", "huggingface-image:{}", "--task", "digits"),
    "run": ("evaluate", "{}"),
    "compare": ("compare", "{}.json", "{}"),
    "report": ("report", "{}"),
    "export": ("export", "{}", "--to", "onnx"),
    "npz": ("describe", "arrays", "--set", "task.path={}.npz"),
    "npy": ("describe", "arrays", "--set", "task.path={}.npy", "--set", "task.label=0"),
    "csv": ("describe", "arrays", "--set", "task.path={}.csv"),
    "parquet": ("describe", "arrays", "--set", "task.path={}.parquet"),
    "safetensors": ("describe", "arrays", "--set", "task.path={}.safetensors"),
    "shards": ("describe", "webdataset", "--set", "task.train={}.tar"),
    "pictures": ("describe", "image-folder", "--set", "task.root={}"),
    "data set": ("describe", "huggingface", "--set", "task.name=./{}"),
    "mnist": ("describe", "mnist", "--set", "task.root={}"),
    "cifar": ("describe", "cifar10", "--set", "task.root={}"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused(reader: str, kind: str, tmp_path: Path) -> None:
    for part in READERS[reader]:
        if "{}" in part:
            suffix = part[part.index("{}") + 2 :]
            made = NO_FILES[kind](tmp_path / f"it{suffix}")
    arguments = [part.replace("{}", made.name.removesuffix(made.suffix)) for part in READERS[reader]]
    refused(*arguments)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["-".join(NAMES.values()), ""], ids=["hostile", "empty"])
def test_any_name_is_printed_as_it_is(reader: str, name: str) -> None:
    refused(*(part.replace("{}", name) for part in READERS[reader]))


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("recipe.toml", ("evaluate",)),
        ("recipe.toml", ("train", "--resume")),
        ("result.json", ("compare",)),
        ("result.json", ("report", "--saved")),
        ("environment.json", ("report", "--saved")),
    ],
)
def test_a_run_folder_of_pipes_is_refused(file: str, command: tuple[str, ...], tmp_path: Path) -> None:
    run_folder = shutil.copytree(RUN, tmp_path / "run")
    (run_folder / file).unlink(missing_ok=True)
    NO_FILES["pipe"](run_folder / file)
    assert run(*command, "run").exit_code in (0, 2)


@pytest.mark.parametrize("name", [name for name in NAMES.values() if "/" not in name])
def test_a_name_that_exists_works(name: str, tmp_path: Path) -> None:
    """A recipe, its run folder and a picture may have any name that the system allows."""
    recipe = tmp_path / f"{name}.toml"
    recipe.write_text('schema = 1\nname = "x"\n[task]\nuse = "digits"\n[method]\nuse = "erm"\n')
    assert run("validate", recipe.name).exit_code == 0
    assert run("recipes", "copy", "cat", f"{name}-copy.toml").exit_code == 0
    described = run("describe", "digits", "--out", f"{name}.png")
    assert described.exit_code == 0
    assert (tmp_path / f"{name}.png").is_file()


def test_a_hang_is_seen_even_if_the_code_catches_everything() -> None:
    with pytest.raises(AssertionError, match="it hangs"), in_time(1), contextlib.suppress(BaseException):
        time.sleep(5)
