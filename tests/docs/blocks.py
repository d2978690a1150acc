"""Read the code blocks and command lines of Markdown files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*) *\n(?P<text>.*?)^(?P=indent)``` *$", re.M | re.S)
_INLINE = re.compile(r"`(robustplug [^`\n]+)`")
_OPERATORS = {"&&", "||", "|", ";", "&", ">", ">>", "<"}


@dataclass(frozen=True)
class Block:
    """Hold a piece of code of a file, its language, and the line that it starts on."""

    file: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.parent.name}/{self.file.name}:{self.line}"


def code_blocks(file: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a file."""
    text = file.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.M)
        yield Block(file, text.count("\n", 0, match.start()) + 2, match["language"], body)


def command_lines(file: Path) -> Iterator[Block]:
    """Yield each line of bash blocks, and each `robustplug …` within the text, which is "inline"."""
    text = file.read_text(encoding="utf-8")
    for block in code_blocks(file):
        if block.language in ("bash", "console", "sh"):
            joined = block.text.replace("\\\n", "  ")
            for number, line in enumerate(joined.splitlines()):
                yield Block(file, block.line + number, "bash", line.removeprefix("$ "))
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _INLINE.finditer(prose):
        yield Block(file, prose.count("\n", 0, match.start()) + 1, "inline", match[1])


def calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of robustplug in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for token in [*lexer, ";"]:
        if token not in _OPERATORS:
            command.append(token)
            continue
        for place, word in enumerate(command):
            if word == "robustplug" and (place == 0 or command[place - 1] in ("-m", "run")):
                yield command[place + 1 :]
                break
        command = []
