"""Export the model of a run, and check the file."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError
from ..plugin.registry import GIVEN, did_you_mean
from ..recipe.errors import RecipeError
from ..runs.choose import stored_recipe
from ..runs.folder import write_atomic, writing
from ..subjects.subject import open_subject

if TYPE_CHECKING:
    from torch import nn

    from ..core.reporting import Reporter
    from ..subjects.assemble import Parts
    from ..training.train import Trained
    from .check import Agreement
    from .content import Content

FOLDER = "exported"


@dataclass(frozen=True)
class Exported:
    """Hold an exported file.

    Attributes:
        path: the file or folder.
        shape: shape of one input; the batch size is free.
        classes: number of logits.
        agreement: how far it agrees with the model of the run.
    """

    path: Path
    shape: tuple[int, ...]
    classes: int
    agreement: Agreement


def export(
    run: str | Path | Trained, to: str, out: str | Path | None = None, *, reporter: Reporter | None = None
) -> Exported:
    """Write the model of a run as a file for other programs, and check it on ten batches of the run's task.

    The file takes inputs in the range of the task, in batches of any size, and returns logits.

    Args:
        run: a run folder, or what `robustplug.train` returned; of an unfinished run, the selected checkpoint
            is exported.
        to: "onnx", "torch-export", "safetensors" (the weights, and in their metadata the model component),
            or "huggingface" (a folder with config.json, model.safetensors and a model card).
        out: the file, or the folder for "huggingface"; None for a name in exported/ of the run folder.
        reporter: receives warnings.

    Raises:
        RunError: the run or the place cannot be used, the model cannot be exported, or file and model
            disagree. No file is kept.
    """
    from .card import CARD, model_card
    from .check import compare, reopened
    from .writers import FORMATS

    if to not in FORMATS:
        close = did_you_mean(to, FORMATS)
        hint = f'did you mean "{close}"?' if close else f"known: {', '.join(FORMATS)}"
        raise RunError(f'there is no format "{to}"; {hint}')
    suffix, write = FORMATS[to]
    folder, module, parts = _opened(run, reporter)
    evaluate = parts.recipe.evaluate
    path = folder / FOLDER / f"{parts.recipe.name}{suffix}" if out is None else Path(out)
    if path.exists():
        raise RunError(f"{path} exists already: delete it, or choose another place with --out")
    if path.suffix != suffix and suffix:
        raise RunError(f'{path} must end in "{suffix}", by which other programs recognise {to}')
    content = _content(module, parts)
    with _new(path) as temporary:
        if not suffix:
            temporary.mkdir()
        write(content, temporary)
        try:
            again = reopened(content, temporary, parts.task)
            found = compare(module, again, parts.task, evaluate.split, evaluate.batch_size)
        except (RunError, RecipeError) as error:
            why = str(error).replace(str(temporary), str(path))
            raise RunError(f"the exported file cannot be used, and is removed: {why}") from error
        if not found.holds:
            raise RunError(f"the exported file disagrees with the model of {folder}, and is removed: {found}")
        if not suffix:
            write_atomic(temporary / CARD, model_card(content, folder).encode())
    return Exported(path, content.shape, content.classes, found)


def _opened(run: str | Path | Trained, reporter: Reporter | None) -> tuple[Path, nn.Module, Parts]:
    """Return the folder of a run, its exported module on the CPU, and its parts.

    Raises:
        RunError: the folder contains no run, or its data or its model were given from Python.
    """
    if not isinstance(run, str | Path):
        assert run.parts is not None
        return run.folder, copy.deepcopy(run.model).to("cpu").eval(), run.parts
    folder = Path(run)
    try:
        stored_recipe(folder)
    except RecipeError as error:
        if not any(f'"{GIVEN}"' in problem.message for problem in error.problems):
            raise
        raise RunError(
            f"{folder} was trained on a model or data from Python: export it in the script that trains it, "
            "with what robustplug.train returned: robustplug.export(trained, …)"
        ) from error
    subject = open_subject(folder, {"device": "cpu", "reporter": reporter})
    return folder, subject.exported, subject.parts


def _content(module: nn.Module, parts: Parts) -> Content:
    """Return what there is to export.

    Raises:
        RunError: the task has no inputs of one shape, or no classes.
    """
    from ..core.types import Feed
    from .content import Content

    recipe, task = parts.recipe, parts.task
    info = task.info
    if info.shape is None or info.classes is None:
        raise RunError(
            "only classifiers of inputs of one shape can be exported, and the task "
            f'"{recipe.task.name}" has no such inputs'
        )
    batch = next(iter(task.batches(recipe.evaluate.split, Feed(batch_size=2))))
    return Content(module, batch.x.float(), recipe, info, info.shape, info.classes)


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """Yield a place beside a path, which becomes the path at the end of the block, or is removed.

    Raises:
        RunError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    with writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.rename(path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)
