"""Write what the attacks of an evaluation did to texts: CSV and JSON as TextAttack has them, and a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...runs.folder import write_atomic, writing
from ...text.records import records_csv, records_html, records_json

if TYPE_CHECKING:
    from ...core.types import Result


def write_texts(result: Result, folder: Path) -> None:
    """Write a CSV, a JSON and an HTML file for each row with texts; without any, nothing.

    Raises:
        RunError: a file cannot be written.
    """
    if not result.texts:
        return
    with writing(f"the texts in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        names: set[str] = set()
        for row, records in result.texts.items():
            name = re.sub(r"[^A-Za-z0-9.=_-]+", "-", row).strip("-.")[:100] or "row"
            while name in names:
                name += "-"
            names.add(name)
            title = f"{result.meta.get('name', '')} · {row}"
            pages = (records_csv(records), records_json(records), records_html(records, title))
            for ending, text in zip(("csv", "json", "html"), pages, strict=True):
                write_atomic(folder / f"{name}.{ending}", text.encode())
