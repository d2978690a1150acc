"""Results as JSON. Reading them does not import torch."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..core.types import AttackResult, EpochReport, Measure, Result

FORMAT = 2


def result_to_json(result: Result, history: Sequence[EpochReport] = ()) -> dict[str, Any]:
    """Return a result as JSON; `right`, one bit for each sample in order, is encoded in base64.

    Sample i is bit i % 8 of byte i // 8, counted from the highest bit.
    """
    body = asdict(replace(result, examples=None))
    del body["examples"]
    for row in body["attacks"]:
        row["right"] = base64.b64encode(np.packbits(np.array(row["right"], dtype=bool)).tobytes()).decode()
    return {"format": FORMAT, **body, "history": [asdict(report) for report in history]}


def result_from_json(body: Mapping[str, Any]) -> Result:
    """Undo `result_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the body is not a result, or has another format.
    """
    if body["format"] != FORMAT:
        raise ValueError(f"the result has format {body['format']}, not {FORMAT}: evaluate the model again")
    samples = int(body["samples"])
    rows = tuple(AttackResult(**_row(row, samples)) for row in body["attacks"])
    return Result(body["split"], samples, body["threat"], rows, body["meta"])


def _row(row: Mapping[str, Any], samples: int) -> dict[str, Any]:
    packed = np.frombuffer(base64.b64decode(row["right"], validate=True), dtype=np.uint8)
    right = np.unpackbits(packed, count=samples).astype(bool) if len(packed) else np.zeros(0, dtype=bool)
    accuracy = math.nan if row["accuracy"] is None else row["accuracy"]
    numbers = {name: {**body, **_unknown(body)} for name, body in row.get("measures", {}).items()}
    measures = {name: Measure(**body) for name, body in numbers.items()}
    # Results of earlier versions have neither.
    counts = {"by_class": tuple(row.get("by_class", ()))}
    counts["confusion"] = tuple(map(tuple, row.get("confusion", ())))
    return {**row, **counts, "right": tuple(right.tolist()), "accuracy": accuracy, "measures": measures}


def _unknown(body: Mapping[str, Any]) -> dict[str, float]:
    """Return NaN for each number that JSON could not represent."""
    return {name: math.nan for name, value in body.items() if value is None}
