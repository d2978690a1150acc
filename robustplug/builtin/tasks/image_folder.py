"""Images on disk, in one folder per class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ...api import BrokenData, DataMissing, Split, is_folder
from . import ImageFolderOptions
from .inspection import Inspection, Samples, held_out
from .picture_task import PictureTask
from .root import data_root

ENDINGS = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Endings of the files that are taken for pictures, in lower case."""

# What file managers, archives and disks leave in folders, besides names that start with a dot.
_LEFT_BEHIND = frozenset(
    (
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)


class ImageFolderTask(PictureTask):
    """Classify images in class folders; files are decoded on demand.

    Inputs are float32 (N, 3, H, W) in [0, 1], regardless of the files' format. Class names are the
    sorted names of the training class folders. Hidden files and folders, and what file managers leave behind,
    are ignored. The splits:

    - folders train/, val/ (or validation/) and test/: they are used as they are;
    - train/ and val/ only, the layout of ImageNet: val/ is the test split, because papers report it as
      such, and validation is held out from train/;
    - otherwise a split without a folder is held out, stratified, from train/ or from the flat tree.

    The stored order of each split is random but fixed and mixes the classes, so that its first samples
    are representative. `info.mean` and `info.std` are those of the first 256 training images in that order.
    """

    def __init__(self, options: ImageFolderOptions) -> None:
        """Find the images, check all of them and read the first.

        Raises:
            DataMissing: no class folders with images exist.
            BrokenData: an image cannot be read, unless such are to be skipped.
            ValueError: there is one class, a split has classes that the training split lacks, there are too
                few images, or they do not have the size that is asked for.
        """
        inspection, others = Inspection(options), Counter[str]()
        class_names, samples = find_splits(options, inspection, others)
        notes = []
        if others:
            endings = ", ".join(f"{count} {ending or '(none)'}" for ending, count in others.most_common(5))
            notes.append(f"{sum(others.values())} files with other endings were ignored: {endings}")
        super().__init__(samples, class_names, inspection, notes)


def find_splits(
    options: ImageFolderOptions, inspection: Inspection, others: Counter[str]
) -> tuple[tuple[str, ...], dict[Split, Samples]]:
    """Find and check the images of each split, and the class names; see ImageFolderTask for the layouts.

    Args:
        options: root and shares.
        inspection: checks the images.
        others: counts the files that are no pictures, by their ending.

    Raises:
        As ImageFolderTask.
    """
    root = data_root(options.root)
    split_by_folder = _has_folders(root / "train")
    names = [name for name in ("val", "validation", "test") if _has_folders(root / name)]
    if names and not split_by_folder:
        raise DataMissing(f"{root.absolute()} has the folder {names[0]}, but no class folders in train")
    classes, found = _scan(root / "train" if split_by_folder else root, others)
    if len(classes) == 1:
        raise ValueError(
            f"{root.absolute()} holds one class, {classes[0]}: a classification needs two. If the class "
            "folders lie deeper, set task.root to the folder that contains them"
        )
    train = inspection.sound(found)
    empty = set(range(len(classes))) - {label for _, label in train}
    if empty:
        raise BrokenData(f"no picture of the class {classes[min(empty)]} can be read")
    parts = {name: inspection.sound(_relabelled(root / name, classes, others)) for name in names}
    validation, test = parts.get("val", parts.get("validation")), parts.get("test")
    if test is None:
        validation, test = None, validation
    return classes, held_out(
        train,
        options.validation if validation is None else validation,
        options.test if test is None else test,
        options.split_seed,
    )


def hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left behind by a file manager or an archive."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def _has_folders(folder: Path) -> bool:
    """Return whether a folder contains class folders, unlike a class folder of the same name ("train")."""
    return is_folder(folder) and any(child.is_dir() and not hidden(child.name) for child in folder.iterdir())


def _scan(folder: Path, others: Counter[str]) -> tuple[tuple[str, ...], Samples]:
    why, samples = "it does not exist", Samples()
    classes: tuple[str, ...] = ()
    if is_folder(folder):
        inside = [child.name for child in folder.iterdir() if child.is_dir() and not hidden(child.name)]
        classes = tuple(sorted(inside))
        why = "it contains no folders"
    for label, name in enumerate(classes):
        paths = _pictures(folder / name, others)
        if not paths:
            why = f"no picture in {name}; the endings are {', '.join(sorted(ENDINGS))}"
            break
        samples += [(path, label) for path in paths]
    else:
        if classes:
            return classes, samples
    raise DataMissing(
        f"no class folders with images found in the folder {folder.absolute()} ({why}). Set the option "
        "task.root or the variable ROBUSTPLUG_DATA to a folder with one folder per class, or to a folder "
        "whose subfolder train has one per class; this task has no task.download"
    )


def _pictures(folder: Path, others: Counter[str]) -> list[str]:
    """List the pictures below a folder, sorted by folder and name; each folder once, however it is linked."""
    found, seen = [], set[tuple[int, int]]()
    for place, folders, files in os.walk(folder, followlinks=True):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not hidden(name))
        found.append((place, sorted(name for name in files if not hidden(name))))
    paths = []
    for place, files in sorted(found):
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() in ENDINGS:
                paths.append(str(path))
            else:
                others[path.suffix.lower()] += 1
    return paths


def _relabelled(folder: Path, classes: tuple[str, ...], others: Counter[str]) -> Samples:
    names, samples = _scan(folder, others)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(f"{folder} has classes that the training images lack: {', '.join(unknown)}")
    return [(path, classes.index(names[label])) for path, label in samples]
