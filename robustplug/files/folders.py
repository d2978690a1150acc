"""Folders of models that libraries read: checked before a library opens them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import BrokenData
from .reading import Unreadable, is_folder, open_file, read_json

# A shard of weights as libraries write it; no path.
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")


def check_model_folder(folder: str | Path) -> None:
    """Check the JSON files and the weights in a folder of Hugging Face; the name of a model passes.

    Raises:
        BrokenData: the path is no folder, a file in it is none, is too large, no JSON or nested too deeply,
            or an index names weights outside the folder.
    """
    if not is_folder(folder):
        # A library would ask the Hub for a model of this name, again and again.
        if os.path.lexists(folder):
            raise BrokenData(f"{folder} is not a folder with a model")
        return
    for file in sorted(Path(folder).iterdir()):
        if file.suffix not in (".json", ".safetensors") or is_folder(file):
            continue
        try:
            if file.suffix == ".safetensors":
                open_file(file).close()
            elif (name := _outside(read_json(file))) and file.name.endswith(".index.json"):
                raise Unreadable(f"names {name!r} as a file of weights, not a .safetensors file beside it")
        except (OSError, Unreadable) as error:
            raise BrokenData(f"{file} {error}") from error


def _outside(body: Any) -> str:
    """Return the first file in an index that is not the plain name of a .safetensors file."""
    named = body.get("weight_map") if isinstance(body, dict) else None
    values = list(named.values()) if isinstance(named, dict) else []
    return next((str(name)[:80] for name in values if not _SHARD.fullmatch(str(name))), "")
