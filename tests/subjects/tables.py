"""Digits as the libraries of tables know them, and small models of them."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from robustplug.core.types import Feed

from .models import TASK


@functools.cache
def rows() -> tuple[Any, Any]:
    """Return the training split, (N, 64) and (N,)."""
    (batch,) = TASK.batches("train", Feed(batch_size=2000))
    return flat(batch.x), batch.y.numpy()


def flat(x: Tensor) -> Any:
    return x.flatten(1).numpy()


def labels(classes: int) -> Any:
    """Return the labels, in fewer classes."""
    return rows()[1] * classes // 10


def lightgbm(objective: str = "multiclass", classes: int = 10, features: int = 64) -> Any:
    library: Any = pytest.importorskip("lightgbm")
    counted = {"num_class": classes} if objective.startswith("multi") else {}
    settings = {"objective": objective, "num_leaves": 8, "num_threads": 1, "verbosity": -1, **counted}
    x = rows()[0][:, :features]
    group = [len(x)] if objective == "lambdarank" else None
    data = library.Dataset(x, labels(min(classes, 10)), group=group)
    return library.train(settings, data, 4)


def xgboost(objective: str = "multi:softprob", classes: int = 10, **settings: Any) -> Any:
    library: Any = pytest.importorskip("xgboost")
    counted = {"num_class": classes} if objective.startswith("multi") else {}
    data = library.DMatrix(rows()[0], labels(classes))
    return library.train(
        {"objective": objective, "max_depth": 3, "nthread": 1, **counted, **settings}, data, 4
    )


def saved(booster: Any, path: Path) -> Path:
    booster.save_model(str(path))
    return path


def margins(booster: Any, x: Tensor) -> Any:
    """Return the library's own raw scores."""
    if type(booster).__module__.startswith("lightgbm"):
        return booster.predict(flat(x), raw_score=True)
    library = importlib.import_module("xgboost")
    return booster.predict(library.DMatrix(flat(x)), output_margin=True)


def decisions(booster: Any, x: Tensor) -> Any:
    """Return the library's own classes, from its probabilities."""
    if type(booster).__module__.startswith("lightgbm"):
        shares = booster.predict(flat(x))
    else:
        shares = booster.predict(importlib.import_module("xgboost").DMatrix(flat(x)))
    return shares.argmax(1) if shares.ndim == 2 else (shares > 0.5).astype(np.int64)
