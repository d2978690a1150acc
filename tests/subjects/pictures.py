"""Pictures of every kind of file, written for tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float64]


def picture(height: int = 8, width: int = 6, channels: int = 1, seed: int = 0) -> Pixels:
    """Return a picture (height, width, channels) in [0, 1] whose values 8 bits hold exactly."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels)) / 255


def bits(pixels: Pixels, depth: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return a picture with 8 or 16 bits; one channel has no axis of its own."""
    values = (pixels * (2**depth - 1)).round().astype(np.uint8 if depth == 8 else np.uint16)
    kept: NDArray[np.uint8] | NDArray[np.uint16] = values[..., 0] if values.shape[2] == 1 else values
    return kept


def save_8(pixels: Pixels, path: Path) -> None:
    Image.fromarray(bits(pixels, 8)).save(path)


def save_16(pixels: Pixels, path: Path) -> None:
    Image.fromarray(bits(pixels, 16)).save(path)


def save_16_lzw(pixels: Pixels, path: Path) -> None:
    Image.fromarray(bits(pixels, 16)).save(path, compression="tiff_lzw")


def save_32(pixels: Pixels, path: Path) -> None:
    """Write 16-bit values into 32-bit integers."""
    Image.fromarray(bits(pixels, 16).astype(np.int32)).save(path)


def save_float(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(path)


def save_big_endian(pixels: Pixels, path: Path) -> None:
    """Write a big-endian TIFF of 16 bits, by hand."""
    values = bits(pixels, 16)
    data, (height, width) = values.astype(">u2").tobytes(), values.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(data)),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    head = struct.pack(">2sHI", b"MM", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack(">H", len(tags)) + entries + struct.pack(">I", 0))


def save_pgm(pixels: Pixels, path: Path) -> None:
    values = bits(pixels, 16)
    head = f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode()
    path.write_bytes(head + values.astype(">u2").tobytes())


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def save_png(pixels: Pixels, path: Path, depth: int = 16, before: bytes = b"") -> None:
    """Write a PNG with 1 to 4 channels (grey, grey and alpha, colours, colours and alpha), by hand.

    Args:
        pixels: the picture.
        path: the file.
        depth: 8 or 16 bits.
        before: chunks before the pixels.
    """
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    values = bits(pixels, depth).reshape(height, -1).astype(">u2" if depth == 16 else np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def save_opaque(pixels: Pixels, path: Path) -> None:
    """Write a PNG of 16 bits with an alpha channel that is opaque."""
    save_png(np.concatenate([pixels, np.ones_like(pixels[..., :1])], 2), path)


def save_rotated(pixels: Pixels, path: Path) -> None:
    """Write the picture turned by a quarter, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(bits(pixels, 16)).copy()).save(path, exif=exif)


SIXTEEN = {
    "png": (save_16, ".png"),
    "tiff": (save_16, ".tif"),
    "tiff-lzw": (save_16_lzw, ".tiff"),
    "tiff-big-endian": (save_big_endian, ".tif"),
    "tiff-of-32-bit-integers": (save_32, ".tif"),
    "tiff-of-floats": (save_float, ".tif"),
    "pgm": (save_pgm, ".pgm"),
    "jpeg-2000": (save_16, ".jp2"),
    "png-opaque-alpha": (save_opaque, ".png"),
    "png-upper-case-ending": (save_png, ".PNG"),
    "png-rotated": (save_rotated, ".png"),
}
"""Ways to save a grey picture with more than 8 bits: functions of pixels and path, with the ending."""
