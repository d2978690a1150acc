"""The adversarial examples that an evaluation found: kept, written, and checked as pictures of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.types import View
from ..errors import RunError
from ..runs.folder import write_atomic, writing

FILE, PICTURES = "examples.safetensors", "examples"


@dataclass(frozen=True)
class Examples:
    """Hold the adversarial examples that broke a sample, one for each sample and row.

    Attributes:
        index: index of each sample within its split, int64 (M,).
        label: its label, int64 (M,); of a task without classes, as the task states it, (M, …).
        before, after: predicted class of the clean input and of the example, int64 (M,); without classes, the
            outputs (M, …).
        row: number of the row that broke the sample, int64 (M,), into `rows`.
        rows: names of the rows of the evaluation.
        origin: clean inputs (M, …).
        x: the examples (M, …), in the units of the task.
        survives: whether an image is still wrong and legal after rounding to 8 bits, bool (M,); None for
            inputs other than images.
    """

    index: Tensor
    label: Tensor
    before: Tensor
    after: Tensor
    row: Tensor
    rows: tuple[str, ...]
    origin: Tensor
    x: Tensor
    survives: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def of(self, row: str) -> Tensor:
        """Return which examples a row found, bool (M,)."""
        return self.row == self.rows.index(row)

    def summary(self) -> dict[str, dict[str, int]]:
        """Return for each row the number of examples, and of those that survive rounding to 8 bits."""
        found = {}
        for number, name in enumerate(self.rows):
            mine = self.row == number
            if bool(mine.any()):
                survive = {} if self.survives is None else {"8-bit": int(self.survives[mine].sum())}
                found[name] = {"examples": int(mine.sum()), **survive}
        return found

    def write(self, folder: Path) -> Path:
        """Write the examples to examples.safetensors, with the names of the rows in its metadata.

        Raises:
            RunError: the file cannot be written.
        """
        from safetensors.torch import save

        names = ("index", "label", "before", "after", "row", "origin", "x")
        tensors = {name: getattr(self, name).contiguous() for name in names}
        if self.survives is not None:
            tensors["survives"] = self.survives
        metadata = {str(number): name for number, name in enumerate(self.rows)}
        with writing(f"the examples in {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / FILE, save(tensors, metadata))
        return folder / FILE

    def write_pictures(self, folder: Path, bounds: Any) -> Path:
        """Write each example as a PNG, named by index, label, prediction and row.

        Raises:
            RunError: a file cannot be written, or the inputs are not images.
        """
        import io

        from PIL import Image

        target = folder / PICTURES
        with writing(f"the pictures in {target}"):
            target.mkdir(parents=True, exist_ok=True)
            for at, pixels in enumerate(levels(self.x, self.origin, bounds)):
                named = self.label.dim() == self.after.dim() == 1
                seen = f"-label-{int(self.label[at])}-seen-as-{int(self.after[at])}" if named else ""
                name = f"{int(self.index[at]):06d}{seen}-row-{int(self.row[at])}.png"
                shown = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
                buffer = io.BytesIO()
                Image.fromarray(shown.numpy()).save(buffer, "PNG")
                write_atomic(target / name, buffer.getvalue())
        return target


def refuse_other_examples(folder: Path) -> None:
    """Refuse to replace a file examples.safetensors that holds something else.

    Raises:
        RunError: it does.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as file:
            if {"index", "label", "before", "after", "row", "origin", "x"} <= set(file.keys()):
                return
    except (SafetensorError, OSError):
        pass
    raise RunError(
        f"{path} holds no examples of robustplug: move it away, or choose another folder with --out"
    )


def levels(x: Tensor, origin: Tensor, bounds: Any) -> Tensor:
    """Return images as levels of 8 bits, uint8 (N, C, H, W); rounding never moves a pixel further away.

    Args:
        x: images.
        origin: the clean images; pixels that the nearest level would take further from these are rounded
            towards them instead.
        bounds: valid range of the pixels.
    """
    low, high = sides(bounds, x)
    exact, clean = ((value - low) / (high - low) * 255 for value in (x, origin))
    nearest = exact.round()
    back = torch.where(exact > clean, exact.floor(), exact.ceil())
    further = (nearest - clean).abs() > (exact - clean).abs()
    return torch.where(further, back, nearest).clamp(0, 255).to(torch.uint8)


def sides(bounds: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return both bounds in a shape that broadcasts over inputs (N, C, …)."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    low, high = (torch.as_tensor(side, dtype=torch.float32, device=x.device).view(-1) for side in bounds)
    return low.view(shape), high.view(shape)


@dataclass
class Keeper:
    """Collect examples while an evaluation runs, on the CPU.

    Attributes:
        classes: number of classes; None without.
        before: prediction for each clean sample, by its index.
        parts: what each batch of each row adds: its row, and index, label, after, origin and x.
    """

    classes: int | None = None
    before: dict[int, Tensor] = field(default_factory=dict)
    parts: list[tuple[int, list[Tensor]]] = field(default_factory=list)

    def add(self, number: int, view: View, output: Any, right: Tensor) -> None:
        """Keep the examples that broke their sample; of the clean row, number 0, keep the predictions."""
        after = output if self.classes is None else output.argmax(1)
        if number == 0:
            self.before.update(zip(view.index.tolist(), after.detach().cpu(), strict=True))
            return
        wrong = ~right
        if bool(wrong.any()):
            label = view.y.argmax(1) if self.classes is not None and view.y.dim() > 1 else view.y
            kept = (view.index, label, after, view.origin, view.x)
            self.parts.append((number, [value[wrong].detach().cpu().clone() for value in kept]))

    def examples(self, rows: Sequence[str]) -> Examples | None:
        """Return all examples, in the order of rows and samples; None if there are none."""
        if not self.parts:
            return None
        parts = sorted(self.parts, key=lambda part: part[0])
        index, label, after, origin, x = (torch.cat([part[at] for _, part in parts]) for at in range(5))
        row = torch.cat([torch.full((len(part[0]),), number) for number, part in parts])
        # Of a class, −1 is none.
        none = torch.full_like(after[0], -1)
        before = torch.stack([self.before.get(sample, none) for sample in index.tolist()])
        return Examples(index, label, before, after, row, tuple(rows), origin, x)
