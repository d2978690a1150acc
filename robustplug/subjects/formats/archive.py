"""Refuse programs that could do more than compute, and archives that could run code while they are loaded.

`torch.export.load` (torch 2.15) unpickles without restrictions what `weights_only=True` refuses: sample
inputs, tensor subclasses and custom objects. It also loads compiled libraries (AOTInductor), passes size
expressions to `sympy.sympify`, which evaluates them, resolves operators by attribute from `torch`, and writes
names and guards of the file into Python source. Therefore all of these are first checked against what
torch.export itself writes. Operators of torch that read and write files are refused in both formats.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...errors import RunError
from ...files.bounds import check_zip
from ...files.reading import parse_json
from .contents import first_line

_WORD = r"(?!__)[A-Za-z_]\w*"
# They read and write files.
_ON_FILES = "from_file|save"
_OPERATORS = re.compile(
    rf"(?!.*\.({_ON_FILES})\b)torch\.ops\.(aten|prims|torchvision|quantized|quantized_decomposed)\.{_WORD}(\.{_WORD})?"
    rf"|torch\.ops\.higher_order\.{_WORD}|torch\.sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|mod|truediv|pow|neg|pos|abs|and_|or_|not_|getitem|eq|ne|lt|le|gt|ge)"
)
# Sizes such as s77, 3*s0 + 1, Mul(Integer(768), Symbol('s77', positive=True, integer=True)).
_SIZES = re.compile(
    r"(?>Symbol\('[a-z]++\d++'|[A-Z][A-Za-z]*+\(|[suz][a-z]?\d++|(?:positive|nonnegative|integer)=|True|False|oo"
    r"|[-\d.+*/%(),<>=&|~ ])*+"
)
# Conditions on sizes such as L['x'].size()[0] > 3.
_GUARDS = re.compile(r"(?>L\['\w++'\]|\.size\(\)\[\d++\]|(?:and|or|not) |[-\d+*/%()<>=! ])*+")
_CALLS_ON_FILES = re.compile(rb"\b(" + _ON_FILES.encode() + rb")\s*\(")
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
# Strings that torch writes into Python source, unquoted and between quotes.
_NAMES = {"name", "forward_arg_names"}
_PATHS = {"parameter_name", "buffer_name", "tensor_constant_name", "custom_obj_name", "fqn"}
_QUOTABLE = re.compile(r"[^\"'\\\r\n]*")


def check_archive(path: Path) -> None:
    """Refuse an archive whose loading could run code.

    Raises:
        RunError: the archive is refused or damaged; the message gives the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive), None)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} is a damaged torch.export file: {first_line(error)}") from error
    if reason is not None:
        raise RunError(
            f"{path} is refused: {reason}, so loading it could run code. Export the model again with "
            "torch.export.save, on plain tensors. If you trust the file, load it yourself and pass the "
            "module to robustplug.evaluate"
        )


def check_script(path: Path) -> None:
    """Refuse a TorchScript archive whose code names an operator that reads or writes files.

    Raises:
        RunError: the archive is refused or damaged; the message gives the reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            codes = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise RunError(f"{path} is a damaged TorchScript file: {first_line(error)}") from error
    found = next((match for code in codes if (match := _CALLS_ON_FILES.search(code))), None)
    if found is not None:
        raise RunError(
            f'{path} is refused: its code calls "{found[1].decode()}", which may read and write files. If '
            "you trust the file, load it yourself and pass the module to robustplug.evaluate"
        )


def _reasons(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the reasons why loading is not safe."""
    for name in archive.namelist():
        if "/data/aotinductor/" in f"/{name}":
            yield "it contains compiled code (AOTInductor)"
        elif name.endswith("_config.json"):
            if any(item["use_pickle"] for item in parse_json(archive.read(name))["config"].values()):
                yield f"{name} refers to pickled Python objects"
        elif name.endswith(".json"):
            yield from _program_reasons(parse_json(archive.read(name)))
        elif name.endswith(".pt") and (data := archive.read(name)):
            if zipfile.is_zipfile(inner := io.BytesIO(data)):
                check_zip(inner)
            if not _only_tensors(data):
                yield f"{name} contains pickled Python objects"


def _only_tensors(data: bytes) -> bool:
    # torch.export.load tries this first; if it fails, it unpickles without restrictions.
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:
        return False
    return True


def _program_reasons(program: Any) -> Iterator[str]:
    for key, value in _strings(program):
        if key in ("target", "as_operator") and not _OPERATORS.fullmatch(value):
            yield f'its graph calls "{value[:60]}"'
        elif key == "expr_str" and not _SIZES.fullmatch(value):
            yield f'it has "{value[:60]}" as a size'
        elif (key in _NAMES and value and not value.isidentifier()) or (
            key in _PATHS and not _QUOTABLE.fullmatch(value)
        ):
            yield f'it has "{value[:60]}" as a name'
        elif key == "guards_code" and not _GUARDS.fullmatch(value):
            yield f'it contains Python code ("{value[:60]}")'
        elif key in ("in_spec", "out_spec") and not _plain_containers(parse_json(value)):
            yield "its inputs or outputs are objects other than tuples, lists and dictionaries"


def _strings(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string of a JSON tree, with the key of the string or of the list around it."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _strings(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value, key)
    elif isinstance(tree, str):
        yield key, tree


def _plain_containers(tree: Any) -> bool:
    if isinstance(tree, list):
        return all(_plain_containers(item) for item in tree)
    if isinstance(tree, dict):
        return tree["type"] in _CONTAINERS and all(_plain_containers(item) for item in tree["children_spec"])
    return not isinstance(tree, str)
