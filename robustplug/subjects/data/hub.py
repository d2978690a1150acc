"""Data sets of Hugging Face: from a folder, from the Hub, or given from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataMissing
from ...files.given import PREFIX, given_data_set
from ...files.reading import is_file, is_folder

# A name on the Hub: an owner and a name, or a name alone.
_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_data_set(
    name: str, key: str, config: str | None = None, revision: str | None = None, train: str = "train"
) -> dict[str, Any]:
    """Return the splits of a data set by their names; a data set without splits is the training split.

    Args:
        name: a folder, one written by `save_to_disk` or one that `load_dataset` reads; a name on the Hub; or
            the name of a data set that was given as an object in the place of the name.
        key: key of the recipe that holds the name, for errors.
        config: configuration of the data set, if it has several.
        revision: commit or tag of the data set on the Hub.
        train: name of the training split.

    Raises:
        DataMissing: there is no such data set, or it cannot be reached.
        ValueError: `datasets` is not installed.
    """
    if name.startswith(PREFIX):
        found = given_data_set(name)
        if found is None:
            raise DataMissing(
                f"{key} names a data set that was given as a Python object of another process: give it again"
            )
        return dict(found) if isinstance(found, Mapping) else {train: found}
    folder = Path(name).expanduser()
    local = is_folder(folder)
    if not local and not _ON_THE_HUB.fullmatch(name):
        raise DataMissing(f"there is no folder {folder.absolute()}: set {key}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f'datasets is not installed ({error}): pip install "robustplug[huggingface]"'
        ) from error
    try:
        if any(is_file(folder / file) for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if local else name, config, revision=revision)
    except Exception as error:  # of the library, the network and the file formats
        where = f"the folder {folder.absolute()}" if local else f"{name}, which is no folder here,"
        raise DataMissing(f"{where} cannot be loaded: {error}") from error
    return dict(found) if isinstance(found, Mapping) else {train: found}
