"""Log to Weights & Biases, online or offline, beside any run of the caller's own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tomllib
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustplug.api import EpochReport, Result, RunInfo

# File in the run folder that contains the run id of Weights & Biases, for a resume.
FILE = "wandb.json"
PROJECT = "robustplug"
_NAME = re.compile(r"[\w. -]{1,128}")

# The start of a run looks as in robustplug_tensorboard, on purpose: the calls are those of two libraries.
_open: dict[str, Any] = {}


def start(run: RunInfo) -> None:
    """Start a run in Weights & Biases with the recipe as its config, or continue that of a resumed run.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ModuleNotFoundError('Weights & Biases is not installed: pip install "robustplug[wandb]"')
    import wandb

    if run.folder in _open:  # an interrupted run that is resumed in the same process
        _open.pop(run.folder).finish()
    folder = Path(run.folder)
    known = _known(folder) if run.resumed_at_epoch is not None else {}
    run_id = known.get("run_id") or uuid.uuid4().hex[:8]
    project = known.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT
    logged = wandb.init(
        project=project,
        id=run_id,
        resume="allow",
        reinit="create_new",  # leaves a run of the caller alone
        name=run.name,
        tags=[run.method, run.task],
        config=tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8")),
        allow_val_change=True,  # an extended run has another number of epochs
        dir=os.environ.get("WANDB_DIR") or run.folder,
        settings=wandb.Settings(silent=True, console="off"),
    )
    logged.define_metric("*", step_metric="epoch")
    body = {"run_id": run_id, "project": project, "url": logged.url}
    (folder / FILE).write_text(json.dumps(body) + "\n", encoding="utf-8")
    _open[run.folder] = logged


def epoch(run: RunInfo, report: EpochReport) -> None:
    """Log the results of an epoch against its number."""
    numbers = {f"train/{name}": value for name, value in report.train.items()}
    numbers |= {f"validation/{name}": value for name, value in report.validation.items()}
    _open[run.folder].log({**numbers, "lr": report.lr, "seconds": report.seconds, "epoch": report.epoch})


def end(run: RunInfo, result: Result) -> None:
    """Log the numbers of the evaluation and the files recipe.toml and result.json, and end the run."""
    from robustplug.api import result_numbers

    logged = _open.pop(run.folder)
    logged.log({**result_numbers(result), "epoch": run.epochs})
    for name in ("recipe.toml", "result.json"):
        logged.save(str(Path(run.folder) / name), base_path=run.folder, policy="now")
    logged.finish()


def _known(folder: Path) -> dict[str, str]:
    """Return run and project of a resumed run; nothing, with a warning, if the file does not name them."""
    from robustplug.api import read_json

    try:
        body = read_json(folder / FILE)
        known = {name: body[name] for name in ("run_id", "project")}
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in known.values()):
            raise ValueError("does not name a run and a project")
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, ValueError) else "does not name a run and a project"
        message = f"{folder / FILE} {why}: the run is logged to another run of Weights & Biases"
        warnings.warn(message, stacklevel=2)
        return {}
    return known
