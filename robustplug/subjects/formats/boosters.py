"""Boosted trees from files of LightGBM (text) and XGBoost (JSON, UBJ), as black boxes.

Both libraries read their files themselves; nothing is unpickled or evaluated. A damaged file may crash the
whole process (LightGBM 4.7 aborts, XGBoost 3.2 reads past its end), so truncated files are detected first.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import RunError
from ...files.reading import Unreadable, parse_json, read_bytes
from .adapter import Opened
from .contents import first_line
from .flat import check_classes, check_features, flat
from .trial import Shape
from .ubj import check_ubj

_LARGEST = 2**30
_LIGHTGBM = {"binary", "multiclass", "multiclassova"}
# Their scores are one number, above 0 for the second class, or one number for each class.
_XGBOOST = {"binary:logistic", "binary:logitraw", "binary:hinge", "multi:softmax", "multi:softprob"}


def open_lightgbm(path: Path, shape: Shape) -> Opened:
    """Load a LightGBM text model.

    Raises:
        RunError: LightGBM is not installed, the file is damaged, or the model does not classify the task.
    """
    library = _library("lightgbm", path)
    text = _content(path)
    if b"\r\n" in text[:1000]:
        raise RunError(
            f"{path} has Windows line endings, which LightGBM does not write: copy it again, in binary mode"
        )
    if not _whole_lightgbm(text):
        raise _damaged(path, "its trees are not at the stated positions")
    try:
        booster = library.Booster(model_str=text.decode())
    except (library.basic.LightGBMError, ValueError) as error:
        raise _damaged(path, first_line(error)) from error
    said = re.search(rb"^objective=(\S+)", text, re.MULTILINE)
    objective = said[1].decode() if said else "custom"
    columns = int(booster.num_model_per_iteration())
    _check(path, objective, _LIGHTGBM, int(booster.num_feature()), columns, shape)

    def call(x: Tensor) -> Any:
        return _columns(booster.predict(flat(x), raw_score=True, num_threads=torch.get_num_threads()))

    return Opened(call, "lightgbm", str(path), {"objective": objective})


def open_xgboost(path: Path, shape: Shape) -> Opened:
    """Load a model that XGBoost has saved as JSON or UBJ.

    Raises:
        RunError: XGBoost is not installed, the file is damaged, or the model does not classify the task.
    """
    library = _library("xgboost", path)
    data = _content(path)
    # The version is the last entry, in both formats.
    if not data.rstrip().endswith(b"}") or b"version" not in data[-200:]:
        raise _damaged(path, "its end is missing")
    try:
        parse_json(data) if data.startswith(b'{"') or b'"learner"' in data[:100] else check_ubj(data)
    except Unreadable as error:
        raise RunError(f"{path} {error}: download or save it again") from error
    booster = library.Booster()
    try:
        booster.load_model(bytearray(data))
        learner = parse_json(booster.save_config())["learner"]
    except library.core.XGBoostError as error:
        raise _damaged(path, first_line(error)) from error
    objective = str(learner["objective"]["name"])
    columns = max(1, int(learner["learner_model_param"]["num_class"]))
    _check(path, objective, _XGBOOST, int(booster.num_features()), columns, shape)
    opened = Opened(_xgboost_call(library, booster), "xgboost", str(path), {"objective": objective})
    best, rounds = booster.attr("best_iteration"), int(booster.num_boosted_rounds())
    if best is not None and best.isdecimal() and int(best[:18]) + 1 < rounds:
        opened.notes.append(
            f"its training was stopped early, but all {rounds} rounds are used, not only the first "
            f"{int(best) + 1}, which are the best; to use only those, save booster[:{int(best) + 1}]"
        )
    return opened


def _xgboost_call(library: Any, booster: Any) -> Any:
    threads = 0

    def call(x: Tensor) -> Any:
        nonlocal threads
        if threads != torch.get_num_threads():
            threads = torch.get_num_threads()
            booster.set_param({"nthread": threads})
        data = library.DMatrix(flat(x), nthread=threads)
        return _columns(booster.predict(data, output_margin=True, validate_features=False))

    return call


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, _LARGEST)
    except (Unreadable, OSError) as error:
        raise RunError(f"{path} {error}") from error


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RunError(
            f'{path} needs {name} ({first_line(error)}): pip install "robustplug[trees]"'
        ) from error


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged or cut off ({why}): download or save it again")


def _whole_lightgbm(text: bytes) -> bool:
    """Return whether each tree is at the position that the sizes in the header of a text model state."""
    sizes = re.search(rb"^tree_sizes=([\d ]*)\r?$", text, re.MULTILINE)
    place = text.find(b"Tree=0")
    if sizes is None or place < 0:
        return False
    for number, size in enumerate(sizes[1].split()):
        if place > len(text) or not re.compile(rb"Tree=%d\s" % number).match(text, place):
            return False
        # A longer number exceeds any file size, and the digits that Python converts.
        place += int(size[:18])
    return text.startswith(b"end of trees", place)


def _check(path: Path, objective: str, known: set[str], features: int, columns: int, shape: Shape) -> None:
    if objective not in known:
        raise RunError(
            f"{path} is not a classifier: its objective is {objective}, not one of "
            f"{', '.join(sorted(known))}; if its scores do represent classes, give a function that returns "
            "them for images"
        )
    check_features(str(path), features, shape)
    check_classes(str(path), max(2, columns), shape)


def _columns(scores: Any) -> Any:
    """Return scores (N, K); a single score is that of the second class, against 0."""
    return np.stack([np.zeros_like(scores), scores], 1) if scores.ndim == 1 else scores
