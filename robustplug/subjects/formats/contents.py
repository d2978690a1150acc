"""Detect the format of a model file from its content, and explain why other files are not models."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any, Literal

from ...errors import RunError
from ...files.bounds import check_zip
from ...files.reading import Unreadable, is_folder, open_file, parse_json, read_json

Content = Literal["safetensors", "pickle", "torchscript", "export", "onnx", "lightgbm", "xgboost"]

PREFIX = "torchvision:"
KNOWN = (
    "known formats: .safetensors, .pth and .pt (a state dict), .pt and .ts (TorchScript), .pt2 "
    f'(torch.export), .onnx, LightGBM text files, XGBoost .json and .ubj files, and "{PREFIX}NAME"'
)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LIGHTGBM = re.compile(rb"tree\r?\nversion=")
# JSON, and UBJ with the length of the key in 8 bytes.
_XGBOOST = re.compile(rb'\{(\s*"learner"\s*:|L\0{7}\x07learner)')
# What the safetensors library accepts.
_LONGEST_HEADER = 100_000_000
# Key of what `robustplug export` states about a model, and the files of a folder that it writes.
STATES, CONFIG, WEIGHTS = "robustplug", "config.json", "model.safetensors"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or else its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(path: Path) -> Content:
    """Return the format of a model file.

    Raises:
        RunError: the file does not exist, cannot be read, is cut off, or contains no model.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(512)
    except FileNotFoundError:
        raise RunError(f"there is no file {path}; {KNOWN}") from None
    except Unreadable as error:
        raise RunError(f"{path} {error}; {KNOWN}") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise RunError(f"{path} is empty: download or save it again")
    # Before HTML: the length of a safetensors header may happen to spell " <".
    if _safetensors(path, head, size):
        return "safetensors"
    if head.lstrip().startswith(b"<"):
        raise RunError(
            f"{path} contains a web page (HTML or XML), not a model: the download failed, or the link leads "
            "to a page about the file; download the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise RunError(f"{path} is only a Git LFS pointer to a file; fetch the file with: git lfs pull")
    if head.startswith(_ZIP):
        return _zip_content(path)
    if head.startswith(_PICKLE):
        return "pickle"
    if _LIGHTGBM.match(head):
        return "lightgbm"
    if _XGBOOST.match(head):
        return "xgboost"
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if path.suffix.lower() == ".safetensors":
        raise RunError(f"{path} is not a safetensors file, despite its name: download or save it again")
    suffix = f'suffix "{path.suffix}"' if path.suffix else "no suffix"
    raise RunError(f"{path} ({suffix}) contains no model that can be read; {KNOWN}")


def stated_model(path: Path) -> tuple[dict[str, Any], Path] | None:
    """Return what an exported file or folder states about its model.

    Returns:
        The table of the model component, and the file with its weights; None where nothing is stated.
    """
    try:
        if is_folder(path):
            body, weights = read_json(path / CONFIG), path / WEIGHTS
        else:
            with open_file(path) as file:
                length = int.from_bytes(file.read(8), "little")
                header = parse_json(file.read(length)) if length <= _LONGEST_HEADER else {}
            body, weights = header["__metadata__"], path
        stated = body[STATES]
        table = (parse_json(stated) if isinstance(stated, str) else stated)["model"]
        return (table, weights) if isinstance(table["use"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no such file; what is wrong with it is reported where it is loaded


def _safetensors(path: Path, head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > _LONGEST_HEADER:
        return False
    if size < 8 + length:
        raise RunError(f"{path} is cut off after {size} bytes: download or save it again")
    return True


def _zip_content(path: Path) -> Content:
    try:
        check_zip(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Unreadable as error:
        raise RunError(f"{path} {error}: download or save it again") from error
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and any("/code/" in name for name in names):
        return "torchscript"
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return "export"
    if "data.pkl" in ends:
        return "pickle"
    raise RunError(f"{path} is a zip archive without a PyTorch model: unpack it first; {KNOWN}")
