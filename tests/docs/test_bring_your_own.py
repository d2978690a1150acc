"""Each line of the tables of docs/bring-your-own.md runs."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import robustplug
import robustplug.api
from robustplug.cli import main

from .generated import ROOT

TEXT = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")


def lines(section: str) -> list[str]:
    body = re.split(r"^## ", TEXT, flags=re.M)
    (part,) = [text for text in body if text.startswith(f"{section}\n")]
    return re.findall(r"^\| [^|`]+ \| `(.+)` \|$", part, re.M)


DATA, MODELS = lines("Data"), lines("Models")


class Scaled(nn.Module):
    """The same function of inputs in another range."""

    def __init__(self, net: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.net, self.low, self.high = net, low, high

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x - self.low) / (self.high - self.low))
        return logits


def make_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the lines name, and files in the working directory."""
    folder = tmp_path_factory.mktemp("own")
    names = objects()
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files(names)
        yield names


def objects() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier

    rng = torch.Generator().manual_seed(0)
    y = torch.arange(50) % 10
    x = torch.rand(50, 1, 8, 8, generator=rng) * 0.5
    for at in range(50):
        x[at, 0, int(y[at]) % 8] += 0.4
    with robustplug.api.isolated(0):
        net = make_net()
        table_net = nn.Linear(3, 2)
    dataset = TensorDataset(x, y)
    return {
        "robustplug": robustplug,
        "torch": torch,
        "np": np,
        "net": net,
        "make_net": make_net,
        "x": x,
        "y": y,
        "threat": {"use": "linf", "eps": "8/255"},
        "net_255": Scaled(net, 0, 255),
        "net_signed": Scaled(net, -1, 1),
        "table_net": table_net,
        "features": torch.rand(50, 3, generator=rng) * torch.tensor([1.0, 10.0, 100.0]),
        "classes": torch.arange(50) % 2,
        "low": [0, 0, 0],
        "high": [1, 10, 100],
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=16),
        "forest": RandomForestClassifier(5, random_state=0).fit(x.flatten(1).numpy(), y.numpy()),
        "program": torch.export.export(
            net.eval(), (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=512)},)
        ),
    }


def files(names: dict[str, Any]) -> None:
    """Write the files that the lines name."""
    net = names["net"]
    torch.save(net.state_dict(), "net.pth")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, "net.safetensors")
    torch.jit.save(torch.jit.script(net), "net.pt")
    info = robustplug.build("task", "digits").info
    small = robustplug.build("model", "small-cnn", width=8, info=info)
    torch.save(small.state_dict(), "small.pth")
    lightning = {f"model.{key}": value for key, value in small.state_dict().items()}
    torch.save({"state_dict": lightning, "epoch": 3, "pytorch-lightning_version": "2.5"}, "last.ckpt")
    libraries()
    onnx_file(net)
    pictures_and_tables()
    x, y = names["x"], names["y"]
    np.savez("all.npz", x=x.numpy(), y=y.numpy())
    np.savez("test.npz", x=x.numpy(), y=y.numpy())
    save_file({"x": x, "y": y}, "test.safetensors")
    quick = [
        "train.epochs=1",
        "model.use=small-cnn",
        "model.width=4",
        "evaluate.samples=20",
        "validate.samples=20",
    ]
    robustplug.train("erm", overrides=quick, out="run")


def libraries() -> None:
    """Write a tiny model of timm and one of transformers."""
    import timm
    from transformers import ViTConfig, ViTForImageClassification

    with robustplug.api.isolated(0):
        efficient = timm.create_model("test_efficientnet", num_classes=10, in_chans=1)
        size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        size |= {
            "intermediate_size": 16,
            "image_size": 8,
            "patch_size": 4,
            "num_channels": 1,
            "num_labels": 10,
        }
        config = ViTConfig(**size)
        ViTForImageClassification(config).save_pretrained("vit")
    save_file({key: value.contiguous() for key, value in efficient.state_dict().items()}, "timm.safetensors")


def pictures_and_tables() -> None:
    """Write folders of pictures, a table, a saved data set and shards."""
    import datasets

    rng = np.random.default_rng(0)

    def picture(size: int, channels: int = 3) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (size, size, channels), dtype=np.uint8))

    for number in range(40):
        for folder, size, channels in (("photos", 8, 3), ("mixed", 6 + number % 5, 3), ("transparent", 8, 4)):
            target = Path(folder, f"class-{number % 2}")
            target.mkdir(parents=True, exist_ok=True)
            picture(size, channels).save(target / f"{number}.png")
    rgb = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval())
    torch.jit.save(rgb, "net_rgb.pt")
    rows = [f"{a:.3f},{b:.3f},{'iris' if a > b else 'rose'}" for a, b in rng.random((60, 2))]
    Path("table.csv").write_text("long,wide,species\n" + "\n".join(rows) + "\n")
    pairs = {"image": [picture(8) for _ in range(30)], "label": [n % 3 for n in range(30)]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(pairs).save_to_disk("saved")
    Path("shards").mkdir()
    for shard in range(2):
        with tarfile.open(f"shards/train-{shard:03}.tar", "w") as archive:
            for number in range(20):
                file = io.BytesIO()
                picture(8).save(file, "PNG")
                for name, body in (
                    (f"{number}.png", file.getvalue()),
                    (f"{number}.cls", b"%d" % (number % 2)),
                ):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(body)
                    archive.addfile(entry, io.BytesIO(body))


def onnx_file(net: nn.Module) -> None:
    from tests.subjects.models import write_onnx

    write_onnx(Path("net.onnx"), net)


@pytest.mark.table(12)
@pytest.mark.parametrize("line", DATA + MODELS)
def test_the_line_runs(line: str, place: dict[str, Any], tmp_path: Path) -> None:
    if line.startswith("robustplug "):
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
        return
    code = compile(line, "bring-your-own.md", "eval")
    found = eval(code, dict(place))
    assert all(not row.skipped for row in getattr(found, "result", found).attacks)


def test_there_are_twenty_ways_of_each() -> None:
    assert len(DATA) >= 20
    assert len(MODELS) >= 20
    assert len(set(DATA)) == len(DATA)
