"""Time the loading of images of ImageNet's shape against the training steps that use them.

    python benchmarks/loader.py                         # 2,000 JPEG files of 500 x 375 pixels, at 224
    python benchmarks/loader.py --workers 8 16 --methods erm pgd-at
    python benchmarks/loader.py --dry-run               # every line, with tiny shapes

The files are made in a temporary folder, once as an image folder and once as the shards of WebDataset, and
lie in the cache of the system: a disk may be slower. A loader keeps the device busy where its images/s exceed
those of the step. Both are also read with `decoding = "scaled"`, which decodes JPEG files no larger than
needed: from twice the training size on it is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_parts.device import Machine, Sizes
from gpu_parts.installed import provide_clone
from gpu_parts.ours import Ours, knows
from gpu_parts.report import table
from PIL import Image

CLASSES, SHARDS = 10, 4


def jpeg(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG file with about as many bytes for a pixel as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(noisy).save(written, "JPEG", quality=90)
    return written.getvalue()


def write_images(folder: Path, count: int, width: int, height: int) -> None:
    """Write an image folder, and shards with the same images."""
    with contextlib.ExitStack() as stack:
        shards = [
            stack.enter_context(tarfile.open(folder / f"shard-{number}.tar", "w")) for number in range(SHARDS)
        ]
        for number in range(count):
            content, label = jpeg(width, height, number), number % CLASSES
            place = folder / "images" / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:06}.jpg").write_bytes(content)
            for ending, body in (("jpg", content), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{number:06}.{ending}")
                entry.size = len(body)
                shards[number % SHARDS].addfile(entry, io.BytesIO(body))


def loaded(name: str, options: dict[str, Any], rows: int, device: torch.device) -> float:
    """Return the images that a task serves in a second, over an epoch after its first batch."""
    import robustplug
    from robustplug.api import Feed

    task = robustplug.build("task", name, **options)
    feed = Feed(batch_size=rows, shuffle=True, augment=True, device=str(device))
    served, began = 0, math.nan
    for number, batch in enumerate(task.batches("train", feed)):
        if number:
            served += len(batch)
        else:  # the workers have started
            began = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return served / (time.perf_counter() - began)


def stepped(machine: Machine, method: str, rows: int) -> float:
    """Return the images that training takes in a second, if they are on the device already."""
    fast = "auto" if knows("fast") else "off"
    run = Ours(machine, method, rows, fast, precision="auto", batches=10)
    return 1e3 * rows / run.milliseconds(lambda: math.inf)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write both."""
    cuda, cores = torch.cuda.is_available(), os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224, help="height and width in training")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({2, cores}))
    parser.add_argument("--model", default="resnet50", help="name of a model of torchvision")
    parser.add_argument("--methods", nargs="*", default=["erm", "fast-at", "pgd-at"] if cuda else [])
    parser.add_argument("--steps", type=int, default=3, help="steps of PGD")
    parser.add_argument("--json", type=Path, default=Path("loader.json"), help="file for all numbers")
    parser.add_argument("--dry-run", action="store_true", help="run every line with tiny shapes, on the CPU")
    options = parser.parse_args(arguments)
    provide_clone()
    model: dict[str, Any] = {"use": "torchvision", "name": options.model}
    if options.dry_run:
        cuda, model = False, {"use": "small-cnn", "width": 2, "hidden": 4}
        options.images, options.width, options.height, options.size = 40, 160, 120, 72
        options.batch, options.workers, options.methods, options.steps = 4, [0, 2], ["erm", "pgd-at"], 1
    sizes = Sizes(model=model, side=options.size, steps=options.steps, warm=4, runs=4, rounds=3)
    machine = Machine(not cuda, sizes)
    found: dict[str, Any] = {
        "machine": machine.describe() | {"cores": cores},
        "settings": vars(options) | {"json": ""},
    }
    print(f"{found['machine']}", flush=True)
    rows: list[list[str]] = []

    def note(kind: str, name: str, value: float) -> None:
        found.setdefault(kind, {})[name] = round(value, 1)
        rows.append([f"{kind}: {name}", f"{value:.0f}"])
        print(f"{kind}: {name}: {value:.0f} images/s", flush=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="robustplug-loader-") as folder:
        write_images(Path(folder), options.images, options.width, options.height)
        sources = {
            "image-folder": {"root": f"{folder}/images"},
            "webdataset": {"train": f"{folder}/shard-*.tar"},
        }
        for name, place in sources.items():
            for decoding in (None, "scaled"):
                for workers in options.workers:
                    asked = {"size": options.size, "workers": workers, "decoding": decoding, **place}
                    how = f"{name}, {workers} workers" + (", scaled" if decoding else "")
                    note("loading", how, loaded(name, asked, options.batch, machine.device))
    for method in options.methods:
        note("training", method, stepped(machine, method, options.batch))
        machine.free()
    if not options.methods:
        print("training: left out: there is no GPU that torch can use; --methods times it on the CPU")
    print(table(["", "images/s"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
