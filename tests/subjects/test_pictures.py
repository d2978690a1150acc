"""Pictures as tensors: bit depth, palettes, transparency, rotation, and files that are broken."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from robustplug.errors import BrokenData
from robustplug.subjects.data.brought import read_arrays
from robustplug.subjects.data.pictures import check_picture, picture_tensor, read_picture

from .pictures import SIXTEEN, bits, chunk, picture, save_png


def tensor_of(source: Any, **more: Any) -> torch.Tensor:
    return picture_tensor(read_picture(source, **more))


@pytest.mark.parametrize("kind", SIXTEEN)
def test_16_bits_hold_the_same_picture_as_8(tmp_path: Path, kind: str) -> None:
    save, ending = SIXTEEN[kind]
    pixels = picture()
    save(pixels, tmp_path / f"a{ending}")
    x = tensor_of(tmp_path / f"a{ending}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    assert x.shape == (3 if "alpha" in kind else 1, 8, 6)  # Pillow reads grey and alpha as colours
    assert torch.allclose(x.double(), torch.tensor(pixels[..., 0]), atol=1 / 255)
    assert check_picture(tmp_path / f"a{ending}") == (8, 6)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits(tmp_path: Path, channels: int) -> None:
    pixels = picture(channels=channels)
    pixels[..., 3:] = 1
    save_png(pixels, tmp_path / "a.png")
    x = tensor_of(tmp_path / "a.png")
    assert x.dtype == torch.uint8
    assert torch.equal(x, torch.tensor(bits(pixels[..., :3], 8)).permute(2, 0, 1))


def test_16_bits_keep_what_8_bits_lose(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint16).reshape(8, 6) + 1000
    Image.fromarray(values).save(tmp_path / "a.png")
    x = tensor_of(tmp_path / "a.png")
    assert torch.equal((x[0] * 65535).round().int(), torch.tensor(values.astype(np.int32)))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("RGB", 3), ("P", 3), ("CMYK", 3), ("HSV", 3)]
)
def test_other_modes_have_8_bits(mode: str, channels: int) -> None:
    image = Image.fromarray(bits(picture(channels=3), 8)).convert(mode)
    x = tensor_of(image)
    assert (x.dtype, tuple(x.shape)) == (torch.uint8, (channels, 8, 6))
    assert torch.equal(x, picture_tensor(image.convert("L" if channels == 1 else "RGB")))


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536], [0.0, 1.5], [-0.1, 1.0], [0.0, float("nan")]])
def test_numbers_outside_their_range_are_refused_with_it(tmp_path: Path, values: list[float]) -> None:
    kind = np.int32 if isinstance(values[0], int) else np.float32
    Image.fromarray(np.array([values], dtype=kind)).save(tmp_path / "a.tif")
    for read in (read_picture, check_picture):
        with pytest.raises(BrokenData, match=r"a\.tif.*range from .* to ") as caught:
            read(tmp_path / "a.tif")
        assert f"{values[1]:g}" in str(caught.value)


def test_a_palette_is_followed() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    assert tensor_of(image).permute(1, 2, 0).tolist() == [[[10, 20, 30], [200, 100, 0]]]


def transparent(mode: str, tmp_path: Path) -> Path:
    """Write a picture, black and opaque at the left, white and half or wholly transparent at the right."""
    path = tmp_path / "clear.png"
    if mode == "I;16":
        save_png(np.array([[[0.0], [1.0]]]), path, before=chunk(b"tRNS", b"\xff\xff"))
    elif mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.putpixel((1, 0), 1)
        image.save(path, transparency=1)
    else:
        image = Image.new(mode, (2, 1), (0, 255) if mode == "LA" else (0, 0, 0, 255))
        image.putpixel((1, 0), (255, 0) if mode == "LA" else (255, 255, 255, 0))
        image.save(path)
    return path


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "I;16"])
def test_transparent_pixels_show_what_the_option_says(mode: str, tmp_path: Path) -> None:
    path = transparent(mode, tmp_path)
    for check in (read_picture, check_picture):
        with pytest.raises(BrokenData, match=r'clear\.png.*transparent pixels.*alpha = "white"'):
            check(path)
    for alpha, level in (("white", 1), ("black", 0)):
        x = tensor_of(path, alpha=alpha)
        pixels = x.float() / 255 if x.dtype == torch.uint8 else x
        assert {tuple(channel) for channel in pixels[:, 0].tolist()} == {(0, level)}


def test_half_transparent_pixels_are_mixed() -> None:
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert tensor_of(image, alpha="white").flatten().tolist() == [255, 127, 127]
    assert tensor_of(image, alpha="black").flatten().tolist() == [128, 0, 0]


def test_an_opaque_alpha_channel_is_dropped() -> None:
    pixels = bits(picture(channels=3), 8)
    image = Image.fromarray(pixels)
    image.putalpha(255)
    assert torch.equal(tensor_of(image), torch.tensor(pixels).permute(2, 0, 1))
    assert set(tensor_of(Image.new("LA", (3, 2), (7, 255))).flatten().tolist()) == {7}
    assert tensor_of(Image.new("LA", (3, 2), (7, 255))).shape == (1, 2, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(tmp_path: Path, ending: str, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    more: dict[str, Any] = {"quality": 100} | ({"lossless": True} if ending == "webp" else {})
    Image.fromarray(pixels).save(path, exif=exif, **more)
    upright = Image.fromarray(pixels)
    upright.info["exif"] = exif.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(upright))
    x = tensor_of(path)
    assert check_picture(path) == expected.shape[:2] == tuple(x.shape[1:])
    assert (x.permute(1, 2, 0).float() - torch.tensor(expected).float()).abs().max() < 20


def test_exif_data_that_cannot_be_read_turn_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (24, 16), "red").save(path, exif=b"Exif\0\0nonsense")
    assert check_picture(path) == (16, 24)
    assert tensor_of(path).shape == (3, 16, 24)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.97])
def test_a_file_that_is_cut_off_is_found_by_the_check_and_by_reading(
    tmp_path: Path, ending: str, share: float
) -> None:
    path = tmp_path / f"whole.{ending}"
    Image.fromarray(bits(picture(40, 30, 3), 8)).save(path)
    assert check_picture(path) == (40, 30)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in (read_picture, check_picture):
            with pytest.raises(BrokenData, match=rf"whole\.{ending} cannot be read: ."):
                check(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\0\5\26\7", b"GIF89a"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for check in (read_picture, check_picture):
        with pytest.raises(BrokenData, match=r"a\.png cannot be read") as caught:
            check(path)
        assert "BufferedReader" not in str(caught.value)
    with pytest.raises(BrokenData, match="nothing"):
        read_picture(tmp_path / "nothing.png")
    with pytest.raises(BrokenData, match="nothing"):
        check_picture(tmp_path / "nothing.png")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (400, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 400 // 3)
    for check in (read_picture, check_picture):
        with pytest.raises(BrokenData, match=r"bomb\.png.*160000 pixels"):
            check(path)


def test_a_jpeg_with_zeros_at_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (24, 16), "red").save(path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert check_picture(path) == (16, 24)


def test_a_source_may_be_a_stream() -> None:
    content = io.BytesIO()
    Image.fromarray(bits(picture(), 16)).save(content, "PNG")
    assert check_picture(io.BytesIO(content.getvalue()), name="row 7") == (8, 6)
    assert tensor_of(io.BytesIO(content.getvalue())).dtype == torch.float32
    with pytest.raises(BrokenData, match="row 7"):
        check_picture(io.BytesIO(content.getvalue()[:40]), name="row 7")


# Data sets of pictures that Python code brings


class Pictures(Dataset[Any]):
    def __init__(self, images: list[Image.Image]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> Any:
        return self.images[at], at % 2


def test_pictures_of_16_bits_in_a_data_set_are_not_clipped() -> None:
    pixels = [picture(seed=seed) for seed in range(4)]
    x, y, _ = read_arrays(Pictures([Image.fromarray(bits(each, 16)) for each in pixels]))
    assert (tuple(x.shape), x.dtype, y.tolist()) == ((4, 1, 8, 6), torch.float32, [0, 1, 0, 1])
    expected, *_ = read_arrays(Pictures([Image.fromarray(bits(each, 8)) for each in pixels]))
    assert expected.dtype == torch.uint8
    assert torch.allclose(x, expected.float() / 255, atol=1e-6)


def test_transparent_pictures_in_a_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="transparent pixels"):
        read_arrays(Pictures([Image.new("RGBA", (4, 4), (1, 2, 3, 4))]))


def test_a_data_set_of_8_and_16_bits_is_refused() -> None:
    images = [Image.fromarray(bits(picture(), depth)) for depth in (8, 16)]
    with pytest.raises(ValueError, match=r"sample 1 .*float32.*uint8.*one size and type"):
        read_arrays(Pictures(images))
