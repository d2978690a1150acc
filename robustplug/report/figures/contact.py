"""Contact sheets: rows of thumbnails, drawn by Pillow, since a plot for each image would take seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ...runs.folder import write_atomic, writing

# In pixels: thumbnails, the space around them, and the letters.
_CELL, _GAP, _LETTER = 112, 8, 14


def contact_sheet(path: Path, title: str, rows: Mapping[str, Sequence[tuple[str, Any]]]) -> None:
    """Draw rows of thumbnails.

    Args:
        path: path of the PNG; its folder is created.
        title: title above them.
        rows: (caption, image (1 or 3, H, W) with values in [0, 1]) by row title.

    Raises:
        RunError: the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_LETTER)
    left = 2 * _GAP + int(max(font.getlength(_short(name)) for name in rows))
    step, down = _CELL + _GAP, _CELL + _GAP + _LETTER + 4
    columns = max(len(images) for images in rows.values())
    head = 2 * _GAP + _LETTER
    sheet = Image.new("RGB", (left + columns * step, head + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, "black", font)
    for row, (name, images) in enumerate(rows.items()):
        top = head + row * down
        draw.text((_GAP, top + _LETTER + 4), _short(name), "black", font)
        for column, (caption, image) in enumerate(images):
            at = left + column * step
            draw.text((at, top), caption, "gray", font)
            sheet.paste(_thumbnail(image), (at, top + _LETTER + 4))
    content = BytesIO()
    sheet.save(content, "PNG")
    with writing(f"the picture {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.getvalue())


def _thumbnail(image: Any) -> Any:
    from PIL import Image

    pixels = (image * 255).round().astype("uint8").transpose(1, 2, 0)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    factor = _CELL / max(picture.size)
    width, height = (max(1, round(factor * side)) for side in picture.size)
    # Single pixels of small images stay visible.
    return picture.resize((width, height), Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
