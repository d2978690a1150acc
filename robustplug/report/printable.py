"""Texts of users, recipes and files, made safe for a terminal."""

from __future__ import annotations

import re

# All control characters but newline and tab; characters that turn or hide text; bytes that are no UTF-8.
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DELETE = 0x7F


def printable(text: str) -> str:
    """Return a text with visible symbols in place of what would control a terminal or hide text."""
    return _UNSAFE.sub(_symbol, text)


def _symbol(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 32:
        return chr(0x2400 + code)
    if code == _DELETE:
        return "\u2421"
    # Bytes of file names that are no UTF-8 come as 0xDC80 and above.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
