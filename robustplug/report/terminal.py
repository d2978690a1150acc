"""The terminal: every text that rich prints is plain text, whatever it contains."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from .printable import printable


class Terminal(Console):
    """Print tables, styled texts and strings; strings are not parsed as markup.

    Args:
        stderr: whether to print to stderr.
        quiet: whether to print nothing.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the parts of what is printed; only rich itself may control the terminal."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=printable(part.text))
