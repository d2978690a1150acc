"""Log to MLflow through its client, which leaves the global state of `import mlflow` alone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustplug.api import EpochReport, Result, RunInfo

# In the run folder: which run of MLflow is this one's, for a resume.
FILE = "mlflow.json"
EXPERIMENT = "robustplug"
# MLflow's own limits: parameters of one call, and characters of a value.
_AT_ONCE, _LONGEST = 100, 500

# The run in MLflow of each run folder that is being trained.
_open: dict[str, str] = {}


def start(run: RunInfo) -> None:
    """Start a run in MLflow with the recipe as parameters, or go on with that of a resumed run.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ModuleNotFoundError('MLflow is not installed: pip install "robustplug[mlflow]"')
    client, file = _client(), Path(run.folder) / FILE
    known = None if run.resumed_at_epoch is None else _known(Path(run.folder))
    if known is not None:
        client.update_run(known, status="RUNNING")
        _open[run.folder] = known
        return
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    tags = {"robustplug.folder": run.folder, "robustplug.method": run.method, "robustplug.task": run.task}
    run_id = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
    _open[run.folder] = run_id
    file.write_text(json.dumps({"run_id": run_id, "experiment": name}) + "\n")
    recipe = tomllib.loads((Path(run.folder) / "recipe.toml").read_text(encoding="utf-8"))
    parameters = list(flat(recipe))
    for first in range(0, len(parameters), _AT_ONCE):
        client.log_batch(run_id, params=[_parameter(*pair) for pair in parameters[first : first + _AT_ONCE]])


def epoch(run: RunInfo, report: EpochReport) -> None:
    """Log the numbers of an epoch; its step is its number."""
    numbers = {f"train/{name}": value for name, value in report.train.items()}
    numbers |= {f"validation/{name}": value for name, value in report.validation.items()}
    _log(run, {**numbers, "lr": report.lr, "seconds": report.seconds}, report.epoch)


def end(run: RunInfo, result: Result) -> None:
    """Log the numbers of the evaluation and the files recipe.toml and result.json, and end the run."""
    from robustplug.api import result_numbers

    _log(run, result_numbers(result), run.epochs)
    client, run_id = _client(), _open.pop(run.folder)
    for name in ("recipe.toml", "result.json"):
        client.log_artifact(run_id, str(Path(run.folder) / name))
    client.set_terminated(run_id)


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested tables and arrays by dotted key, as text."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def metric_name(name: str) -> str:
    """Return a name that every release of MLflow takes: "pgd (steps=50)" becomes "pgd _steps_50_"."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


def _log(run: RunInfo, numbers: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    _client().log_batch(
        _open[run.folder],
        metrics=[Metric(metric_name(name), float(value), now, step) for name, value in numbers.items()],
    )


def _parameter(name: str, value: str) -> Any:
    from mlflow.entities import Param

    return Param(metric_name(name), value[:_LONGEST])


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient()


def _known(folder: Path) -> str | None:
    """Return the run in MLflow of a resumed run; None, with a warning, if the file does not name it."""
    from robustplug.api import read_json

    try:
        body = read_json(folder / FILE)
        run_id = body["run_id"]
        if not isinstance(run_id, str) or not re.fullmatch(r"\w{1,64}", run_id):
            raise ValueError("does not name a run")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, ValueError) else "does not name a run"
        warnings.warn(f"{folder / FILE} {why}: the run is logged to another run of MLflow", stacklevel=2)
        return None
    return run_id
