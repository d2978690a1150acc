"""One self-contained HTML page: no network, no JavaScript, no external links."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ...errors import RunError
from ...files.reading import Unreadable, read_bytes
from ..tables.markup import escape

# A picture with more bytes is left out of a page.
LARGEST = 8_000_000
# A wider figure, in CSS pixels, takes the full width of the page.
_HALF = 640
_MADE_BY = "Made by robustplug"


@dataclass(frozen=True)
class Picture:
    """Hold a figure for a page.

    Attributes:
        name: name of the file, without its suffix.
        title: title of the figure.
        titled: whether the picture itself shows the title.
        description: text for readers who cannot see the figure.
        width, height: original size in CSS pixels.
        data: content of the file.
        kind: media type.
        note: note in the caption.
    """

    name: str
    title: str
    description: str
    width: int
    height: int
    data: bytes
    kind: str
    titled: bool
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Hold a section of a page: its title, and its content as HTML."""

    title: str
    content: str

    @property
    def name(self) -> str:
        """Return the anchor of the section within the page."""
        return "-".join(self.title.lower().split())


def read_picture(path: Path, note: str = "") -> Picture:
    """Read a PNG figure, or the SVG beside it, which is sharp at any size.

    Title and description come from the PNG's metadata, or else from its name.

    Raises:
        RunError: the file is not a picture, or is too large.
    """
    from PIL import Image

    try:
        if path.stat().st_size > LARGEST:
            raise RunError(f"{path.name} is larger than {LARGEST // 10**6} MB")
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            said = {str(key): str(value) for key, value in image.info.items()}
            # Without a stated resolution, a pixel of the picture is a CSS pixel.
            dots = image.info.get("dpi", (96, 96))[0] or 96
            width, height = (max(1, round(size * 96 / dots)) for size in image.size)
        data, kind = path.read_bytes(), "image/png"
        drawing = path.with_suffix(".svg")
        if drawing.is_file() and drawing.stat().st_size <= LARGEST // 4:
            data, kind = drawing.read_bytes(), "image/svg+xml"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{path.name} cannot be read: {error}") from error
    titled = "Title" in said
    title = said.get("Title") or path.stem.replace("-", " ").replace("_", " ")
    words = said.get("Description") or f"Figure {path.stem}; its file has no description."
    return Picture(path.stem, title, words, width, height, data, kind, titled, note)


def figure_html(picture: Picture) -> str:
    """Return a figure with its caption and embedded data."""
    wide = ' class="broad"' if picture.width > _HALF else ""
    data = base64.b64encode(picture.data).decode()
    # The caption does not repeat a title that is drawn.
    title = "" if picture.titled else f"<b>{escape(picture.title)}.</b>"
    caption = " ".join(part for part in (title, escape(picture.note)) if part)
    said = f"<figcaption>{caption}</figcaption>" if caption else ""
    least = round(0.6 * picture.width)
    return (
        f'<figure{wide} id="figure-{escape(picture.name)}">'
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(picture.title)}">'
        f'<img src="data:{picture.kind};base64,{data}" alt="{escape(picture.description)}" '
        f'width="{picture.width}" height="{picture.height}" style="min-width: {least}px"></div>'
        f"{said}</figure>\n"
    )


def figures_html(pictures: Sequence[Picture]) -> str:
    """Return figures, side by side where there is room."""
    return f'<div class="figures">\n{"".join(map(figure_html, pictures))}</div>\n' if pictures else ""


def refuse_other_page(path: Path, figures: Path | None) -> None:
    """Refuse to replace a page, or figures, of somebody else.

    Args:
        path: path of the page.
        figures: folder of its figures; None where only a report that was killed can have left one.

    Raises:
        RunError: there is another page, or figures without a page.
    """
    try:
        other = f"<footer><p>{_MADE_BY}" not in read_bytes(path).decode("utf-8", "replace")
    except FileNotFoundError:
        other = figures is not None and figures.exists()
        path = figures or path
    except Unreadable:
        other = True
    if other:
        raise RunError(
            f"{path} exists and is no page of robustplug: move it away, or choose another folder with --out"
        )


def page(title: str, lead: str, sections: Sequence[Section], note: str = "") -> str:
    """Return a whole page.

    Args:
        title: title of the page.
        lead: HTML below the title, with the most important facts.
        sections: sections in order; those without content are left out.
        note: note in the footer, after the version of robustplug.
    """
    shown = [section for section in sections if section.content]
    links = "".join(f'<li><a href="#{each.name}">{escape(each.title)}</a></li>' for each in shown)
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if len(shown) > 1 else ""
    body = "".join(
        f'<section id="{each.name}">\n<h2>{escape(each.title)}</h2>\n{each.content}</section>\n'
        for each in shown
    )
    made_by = f"{_MADE_BY} {version('robustplug')}. {note}".rstrip()
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    # The policy is a second safeguard: even unescaped content cannot load or run anything.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{lead}</header>\n"
        f"{contents}<main>\n{body}</main>\n"
        f"<footer><p>{escape(made_by)}</p></footer>\n</body>\n</html>\n"
    )
