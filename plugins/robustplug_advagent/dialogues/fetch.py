"""Find the published dialogues, or fetch them on request."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from robustplug.api import BrokenData, DataMissing, echo

if TYPE_CHECKING:
    from ..options import DealOptions

SOURCE = "https://raw.githubusercontent.com/facebookresearch/end-to-end-negotiator/main/src/data/negotiate"
LICENCE = (
    "Deal or No Deal (Lewis et al. 2017, github.com/facebookresearch/end-to-end-negotiator) is under "
    "CC BY-NC 4.0: name its authors, and use it for no commercial purpose."
)
# SHA-256 of each file, if known; the parser checks the others line by line.
FILES = {
    "train.txt": "aa278f06765463a5767055e1a544d922b39a9bb78f586f85513bf99f74aa2300",
    "val.txt": "5ad7df00b8bc4b1fff565cb4dc38b23afc7874c496b0ed2e1c58c232326ff996",
    "test.txt": "",
    "selfplay.txt": "05b7d66c309617f0f1a5562ab8c1d2de933e712a4c8419fd924f4a2c899ab3aa",
}
NEEDED = ("train.txt", "val.txt")
SECONDS = 60


def data_folder(options: DealOptions) -> Path:
    """Return the folder of the dialogues.

    The root is `root`, or else ROBUSTPLUG_DATA or "data". The files are in the root or in its subfolder
    "negotiate".

    Raises:
        DataMissing: the files are missing, or cannot be fetched.
        BrokenData: a fetched file is not the published one.
    """
    root = Path(options.root or os.environ.get("ROBUSTPLUG_DATA") or "data")
    folder = next((path for path in (root, root / "negotiate") if (path / NEEDED[0]).is_file()), None)
    if folder is None and options.download:
        folder = root / "negotiate"
        fetch(folder)
    missing = [] if folder is None else [name for name in NEEDED if not (folder / name).is_file()]
    if folder is None or missing:
        what = ", ".join(missing or NEEDED)
        raise DataMissing(
            f"{what} of Deal or No Deal not found in {root.absolute()}. Set the option task.root or the "
            "variable ROBUSTPLUG_DATA to the folder of the dialogues, set task.download = true, or use the "
            'task "scripted-negotiation", which needs no data'
        )
    return folder


def fetch(folder: Path, source: str = SOURCE) -> None:
    """Fetch the files that are missing in a folder, and show their licence.

    Args:
        folder: target folder; it is created if it does not exist.
        source: URL of the folder to fetch from.

    Raises:
        DataMissing: a file cannot be fetched.
        BrokenData: a file is not the published one; it is not kept.
    """
    echo(LICENCE, err=True)
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes of one run must not write the same files.
    with FileLock(folder / ".robustplug-download.lock"):
        for name, digest in FILES.items():
            path = folder / name
            if path.is_file():
                continue
            try:
                with urllib.request.urlopen(f"{source}/{name}", timeout=SECONDS) as answer:
                    content: bytes = answer.read()
            except (OSError, ValueError) as error:
                raise DataMissing(f"{source}/{name} cannot be fetched: {error}") from error
            if digest and hashlib.sha256(content).hexdigest() != digest:
                raise BrokenData(f"{source}/{name} is not the published file: its SHA-256 differs")
            partial = path.with_suffix(".part")
            partial.write_bytes(content)
            partial.replace(path)
