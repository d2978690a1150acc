"""Pictures as tensors: bit depth, palette, transparency and rotation as the file states them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...errors import BrokenData
from ...files.reading import Unreadable, open_file

Alpha = Literal["refuse", "white", "black"]
# Returns the least width and height that a picture of this width and height is needed with.
Least = Callable[[int, int], tuple[int, int]]

# Not EPS, for which Pillow starts another program.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Pillow's own limit, beyond which it only warns; and bytes of a file.
_MOST_PIXELS, _LARGEST = 89_478_485, 2**28
_GREY = ("1", "L", "LA", "La")
_DEEPEST = 65535
# Bytes at the end of a JPEG file in which its end marker is looked for; some cameras append zeros.
_TAIL = 64
# Pillow decodes a PNG to find its orientation, which may stand behind the pixels; these mark such files.
_STATED = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")


def read_picture(
    source: str | Path | IO[bytes] | Image.Image,
    alpha: Alpha = "refuse",
    name: str = "",
    least: Least | None = None,
) -> Image.Image:
    """Read a picture upright and opaque.

    Args:
        source: a file, or a picture of Pillow.
        alpha: what shows through transparent pixels; "refuse" allows none. An alpha channel without
            transparent pixels is dropped.
        name: name of the picture, for errors; by default the path.
        least: called with the width and height of the upright picture; a JPEG file is then decoded at the
            smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below what it returns.

    Returns:
        Mode "L" or "RGB" for 8 bits; "F", grey in [0, 1], for 16 bits (divided by 65535) and for floats.
        Pillow itself reduces 16-bit colours to 8 bits.

    Raises:
        BrokenData: it cannot be decoded, is larger than Pillow's limit against decompression bombs, has
            transparent pixels that are refused, or holds numbers outside its range; the message names it.
    """
    name = name or str(source)
    if isinstance(source, Image.Image):
        return _read(source, alpha, name)
    if isinstance(source, str | Path):
        try:
            file = open_file(source)
        except (OSError, Unreadable) as error:
            raise _broken(name, error) from error
        with file:
            return read_picture(file, alpha, name, least)
    try:
        with _opened(source) as image:
            if least is not None:
                turned = _orientation(image) >= 5
                width, height = least(*image.size[:: -1 if turned else 1])
                image.draft(None, (height, width) if turned else (width, height))
            return _read(image, alpha, name)
    except BrokenData:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others.
        raise _broken(name, error) from error


def picture_tensor(image: Image.Image) -> Tensor:
    """Return a picture as `read_picture` gives it: (3 or 1, H, W), uint8, or float32 in [0, 1]."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def check_picture(source: str | Path | IO[bytes], alpha: Alpha = "refuse", name: str = "") -> tuple[int, int]:
    """Check that a picture can be read, and return its height and width upright.

    The pixels are decoded only where the file has no other sign that it is complete, and where they decide
    whether `read_picture` accepts it.

    Raises:
        BrokenData: as `read_picture`.
    """
    name = name or str(source)
    if isinstance(source, str | Path):
        try:
            with open_file(source) as file:
                return check_picture(file, alpha, name)
        except (OSError, Unreadable) as error:
            raise _broken(name, error) from error
    try:
        with _opened(source) as image:
            width, height = image.size
            if not _deep(image) and not _has_alpha(image):
                if image.format == "PNG" and _plain(source):
                    image.verify()
                    return height, width
                if _complete(source, image.format):
                    return (width, height) if _orientation(image) >= 5 else (height, width)
            width, height = _read(image, alpha, name).size
            return height, width
    except BrokenData:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _opened(file: IO[bytes]) -> Image.Image:
    """Open a picture without decoding it.

    Raises:
        ValueError: it is too large.
        Exception: whatever Pillow raises.
    """
    if (size := file.seek(0, 2)) > _LARGEST:
        raise ValueError(f"it has {size} bytes, of at most {_LARGEST}")
    file.seek(0)
    image = Image.open(file, formats=_FORMATS)
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, of at most {_MOST_PIXELS:,}: make it smaller")
    return image


def _read(image: Image.Image, alpha: Alpha, name: str) -> Image.Image:
    try:
        upright = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
        if _deep(upright):
            return Image.fromarray(_unit(upright, alpha))
        if _has_alpha(upright):
            return _opaque(upright, alpha)
        return upright.convert("L" if upright.mode in _GREY else "RGB")
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> BrokenData:
    why = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        why = "it is empty, or no picture of a known format"
    return BrokenData(f"the picture {name} cannot be read: {why}")


def _deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data that cannot be read turn nothing
        return 1
    return found if found in range(2, 9) else 1


def _unit(image: Image.Image, alpha: Alpha) -> np.ndarray:
    pixels = np.asarray(image)
    least, most = float(pixels.min()), float(pixels.max())
    if image.mode == "F":
        if not (least >= 0 and most <= 1):
            raise ValueError(
                f"its values range from {least:g} to {most:g}: rescale pictures of floats to [0, 1]"
            )
        return pixels.astype(np.float32)
    if least < 0 or most > _DEEPEST:
        raise ValueError(
            f"its values range from {least:.0f} to {most:.0f}, but 16 bits hold 0 to {_DEEPEST}: save it "
            "with 16 bits, or as floats in [0, 1]"
        )
    values = (pixels / np.float32(_DEEPEST)).astype(np.float32)
    clear = pixels == image.info["transparency"] if "transparency" in image.info else None
    if clear is not None and clear.any():
        values[clear] = _ground(alpha) == "white"
    return values


def _opaque(image: Image.Image, alpha: Alpha) -> Image.Image:
    mode = "L" if image.mode in _GREY else "RGB"
    colours = image.convert("RGBA")
    if colours.getchannel("A").getextrema() == (255, 255):
        return colours.convert(mode)
    ground = Image.new("RGBA", colours.size, _ground(alpha))
    return Image.alpha_composite(ground, colours).convert(mode)


def _ground(alpha: Alpha) -> str:
    if alpha == "refuse":
        raise ValueError(
            'it has transparent pixels: say what shows through, alpha = "white" or alpha = "black", or make '
            "it opaque"
        )
    return alpha


def _plain(file: IO[bytes]) -> bool:
    """Return whether a PNG states no orientation."""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return not any(mark in content for mark in _STATED)


def _complete(file: IO[bytes], kind: str | None) -> bool:
    """Return whether a file has its end; False where that is not known."""
    size = file.seek(0, 2)
    if kind == "JPEG":
        file.seek(max(0, size - _TAIL))
        return b"\xff\xd9" in file.read()
    if kind == "WEBP":  # bytes 4 to 7 state how many follow
        file.seek(4)
        return size >= 8 + int.from_bytes(file.read(4), "little")
    return False
