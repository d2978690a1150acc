"""Log to MLflow through its client, which leaves the global state of `import mlflow` alone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
import tomllib
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


def start(run: RunInfo) -> None:
    """Start a run in MLflow with the recipe as parameters, or go on with that of a resumed run.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ModuleNotFoundError('MLflow is not installed: pip install "robustplug[mlflow]"')
    client, file = _client(), Path(run.folder) / FILE
    if run.resumed_at_epoch is not None and file.is_file():
        client.update_run(_run_id(run), status="RUNNING")
        return
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    tags = {"robustplug.folder": run.folder, "robustplug.method": run.method, "robustplug.task": run.task}
    run_id = client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
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
    """Log the accuracies of the evaluation and the files recipe.toml and result.json, and end the run."""
    rows = [row for row in result.attacks if not row.skipped]
    _log(run, {f"{result.split}/{row.name}": row.accuracy for row in rows}, run.epochs)
    client, run_id = _client(), _run_id(run)
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
        _run_id(run),
        metrics=[Metric(metric_name(name), float(value), now, step) for name, value in numbers.items()],
    )


def _parameter(name: str, value: str) -> Any:
    from mlflow.entities import Param

    return Param(metric_name(name), value[:_LONGEST])


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient()


def _run_id(run: RunInfo) -> str:
    return str(json.loads((Path(run.folder) / FILE).read_text())["run_id"])
