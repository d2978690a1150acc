"""Data sets of Hugging Face with a column of texts and one of labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustplug.api import DataMissing, is_file, is_folder

from .tables import columns, refuse, wrong

if TYPE_CHECKING:
    from ..options import TextOptions


# The built-in task of arrays loads data sets alike; plugins share no code but the API.
def load(name: str) -> Mapping[str, Any]:
    """Return the splits of a data set in a folder, or on the Hub, by their names.

    Raises:
        DataMissing: there is no such data set, or it cannot be reached.
        ValueError: `datasets` is not installed.
    """
    folder = Path(name).expanduser()
    local = is_folder(folder)
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataMissing(f"there is no folder {folder.absolute()}: set task.data")
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
            found = datasets.load_dataset(str(folder) if local else name)
    except Exception as error:  # of the library, the network and the file formats
        where = f"the folder {folder.absolute()}" if local else f"{name}, which is no folder here,"
        raise DataMissing(f"{where} cannot be loaded: {error}") from error
    return found if isinstance(found, Mapping) else {"train": found}


def pairs(split: Any, name: str, options: TextOptions) -> list[tuple[str, str]]:
    """Return the texts and the names of their classes.

    Raises:
        BrokenData: rows cannot be used; the message lists the first 20.
        ValueError: a column does not exist.
    """
    source = f"the split {name} of {options.data}"
    names = list(split.column_names)
    text, label = (names[place] for place in columns(names, source, options))
    classes = getattr(split.features[label], "names", None)
    problems, found = [], []
    for row, (said, number) in enumerate(zip(split[text], split[label], strict=True)):
        # Test splits of benchmarks without labels have -1.
        hidden = classes is not None and not 0 <= int(number) < len(classes)
        why = "the label is missing" if hidden else wrong(said, number)
        if why:
            problems.append(f"row {row}: {why}")
        else:
            found.append((said, str(classes[int(number)] if classes is not None else number)))
    refuse(problems, source)
    return found
