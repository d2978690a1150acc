from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .models import bare, images

Make = Callable[[Path], nn.Module]


def _script(model: nn.Module, path: Path) -> None:
    torch.jit.save(torch.jit.script(model), str(path))


def _trace(model: nn.Module, path: Path) -> None:
    traced = torch.jit.trace(model, images(2), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path))


def _frozen(model: nn.Module, path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(model))
    torch.jit.save(frozen, str(path))


def _exported(dynamic: bool) -> Callable[[nn.Module, Path], None]:
    def export(model: nn.Module, path: Path) -> None:
        shapes: Any = ({0: torch.export.Dim("batch", min=2)},) if dynamic else None
        program = torch.export.export(model, (images(4),), dynamic_shapes=shapes)
        torch.export.save(program, path)

    return export


WRITERS: dict[str, Callable[[nn.Module, Path], None]] = {
    "script.pt": _script,
    "trace.ts": _trace,
    "frozen.pt": _frozen,
    "free.pt2": _exported(dynamic=True),
    "fixed.pt2": _exported(dynamic=False),
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the small CNN as a program, in eval or training mode; each is written once."""
    folder = tmp_path_factory.mktemp("programs")

    def program(name: str, training: bool = False) -> Path:
        path = folder / ("training" if training else "eval") / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                WRITERS[name](bare().train(training), path)
        return path

    return program
