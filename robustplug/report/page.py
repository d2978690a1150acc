"""One self-contained HTML page: no network, no JavaScript, nothing outside of it is linked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import RunError
from .markup import escape

# A picture beyond this many bytes is not put into a page.
LARGEST = 8_000_000
# A wider figure, in CSS pixels, takes the whole width of the page.
_HALF = 640


@dataclass(frozen=True)
class Picture:
    """Hold a figure's file, as a page shows it.

    Attributes:
        name: of the file, without its suffix.
        title: for the caption.
        description: for those who do not see it.
        width, height: in CSS pixels, as large as it was made.
        data: of the file.
        kind: media type.
        note: below the title, what to look at.
    """

    name: str
    title: str
    description: str
    width: int
    height: int
    data: bytes
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Hold a part of a page: its title, and what stands below as HTML."""

    title: str
    content: str

    @property
    def name(self) -> str:
        """Return what links within the page call it."""
        return "-".join(self.title.lower().split())


def read_picture(path: Path, note: str = "") -> Picture:
    """Read a PNG figure; of an SVG beside it, which is sharp at any size, the drawing is taken.

    Title and description are those in the PNG's metadata, or else made of its name.

    Raises:
        RunError: it is no picture, or too large.
    """
    from PIL import Image

    try:
        if path.stat().st_size > LARGEST:
            raise RunError(f"{path.name} is larger than {LARGEST // 10**6} MB")
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            said = {str(key): str(value) for key, value in image.info.items()}
            # Of a picture that does not say how fine it is, a pixel is a pixel.
            dots = image.info.get("dpi", (96, 96))[0] or 96
            width, height = (max(1, round(size * 96 / dots)) for size in image.size)
        data, kind = path.read_bytes(), "image/png"
        drawing = path.with_suffix(".svg")
        if drawing.is_file() and drawing.stat().st_size <= LARGEST // 4:
            data, kind = drawing.read_bytes(), "image/svg+xml"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{path.name} cannot be read: {error}") from error
    title = said.get("Title") or path.stem.replace("-", " ").replace("_", " ")
    words = said.get("Description") or f"Figure {path.stem}; its file has no description."
    return Picture(path.stem, title, words, width, height, data, kind, note)


def figure_html(picture: Picture) -> str:
    """Return a figure with its caption; its data is within."""
    wide = ' class="broad"' if picture.width > _HALF else ""
    data = base64.b64encode(picture.data).decode()
    note = f" {escape(picture.note)}" if picture.note else ""
    least = round(0.6 * picture.width)
    return (
        f'<figure{wide} id="figure-{escape(picture.name)}">'
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(picture.title)}">'
        f'<img src="data:{picture.kind};base64,{data}" alt="{escape(picture.description)}" '
        f'width="{picture.width}" height="{picture.height}" style="min-width: {least}px"></div>'
        f"<figcaption><b>{escape(picture.title)}.</b>{note}</figcaption></figure>\n"
    )


def figures_html(pictures: Sequence[Picture]) -> str:
    """Return figures, side by side where there is room."""
    return f'<div class="figures">\n{"".join(map(figure_html, pictures))}</div>\n' if pictures else ""


def page(title: str, lead: str, sections: Sequence[Section], made_by: str) -> str:
    """Return a whole page.

    Args:
        title: of the page.
        lead: HTML below the title: the most important in short.
        sections: in order; those without content are left out.
        made_by: last line.
    """
    shown = [section for section in sections if section.content]
    links = "".join(f'<li><a href="#{each.name}">{escape(each.title)}</a></li>' for each in shown)
    body = "".join(
        f'<section id="{each.name}">\n<h2>{escape(each.title)}</h2>\n{each.content}</section>\n'
        for each in shown
    )
    # The policy is a second lock: nothing is fetched or run even if something was not escaped.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{lead}</header>\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n'
        f"<footer><p>{escape(made_by)}</p></footer>\n</body>\n</html>\n"
    )


STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #555; --line: #c9c9c9; --accent: #00507d; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; max-width: 78rem; background: #fff;
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; overflow-wrap: anywhere; }
h1 { margin: 0 0 .4rem; font-size: clamp(1.6rem, 1.2rem + 2vw, 2.3rem); letter-spacing: -.01em; }
h2 { margin: 3rem 0 1rem; padding-top: .6rem; border-top: 2px solid var(--ink); font-size: 1.4rem; }
h3 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
p, li { max-width: 44rem; overflow-wrap: anywhere; } p { margin: 0 0 .8rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.subtitle, .note, figcaption, footer { color: var(--soft); }
.note, figcaption, footer { font-size: .875rem; }
figcaption b { color: var(--ink); font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1.2rem 0 0; padding: 0; list-style: none; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin: 1.4rem 0;
  border: 1px solid var(--line); background: var(--line); }
.facts div { padding: .7rem .9rem; background: #fff; } .facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: .1rem 0 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts dd small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
.wide { max-width: 100%; overflow-x: auto; }
table { margin: 0 0 .6rem; border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
caption { padding: 0 0 .5rem; font-weight: 600; text-align: left; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; } tbody + tbody { border-top: 2px solid var(--line); }
.n { padding-left: .8rem; text-align: right; white-space: nowrap; }
thead .n { white-space: normal; } .pairs th { color: var(--soft); white-space: nowrap; }
.pairs td { overflow-wrap: anywhere; }
.good { color: #00603f; } .doubt { color: #7a4a00; } .bad { color: #a11200; font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 2rem; }
figure { margin: 0; min-width: 0; } .broad { grid-column: 1 / -1; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto 0 0; }
pre { padding: 1rem; border: 1px solid var(--line); overflow-x: auto; font: .8125rem/1.5 ui-monospace, Consolas,
  "DejaVu Sans Mono", monospace; tab-size: 4; }
.talk { white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em;
  overflow-wrap: anywhere; }
@media print {
  @page { margin: 18mm 16mm; }
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  nav { display: none; } a { color: inherit; text-decoration: none; }
  h2, h3, caption { break-after: avoid; } figure, tr, .facts { break-inside: avoid; }
  .wide { overflow: visible; } figure img { min-width: 0 !important; max-height: 20cm; object-fit: contain; }
  table { font-size: 8pt; } pre { font-size: 7.5pt; white-space: pre-wrap; }
  .figures { grid-template-columns: 1fr 1fr; gap: 8mm; }
}
"""
