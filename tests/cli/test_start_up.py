"""From the command to the first update, no library is imported that the recipe does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Each takes from a tenth of a second to several seconds. torch's own Triton comes with its optimizers.
HEAVY = (
    "art",
    "cv2",
    "datasets",
    "huggingface_hub",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "nltk",
    "kornia",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "pyautoattack",
    "ray",
    "scipy",
    "skimage",
    "sklearn",
    "submitit",
    "tensorboard",
    "timm",
    "tokenizers",
    "torchattacks",
    "torchvision",
    "transformers",
    "wandb",
    "xgboost",
)
# Stops after the first update, and prints the modules.
START = """
import json, os, sys
from robustplug.training.loop import Loop
update = Loop._update
def first(self, *rest):
    update(self, *rest)
    print(json.dumps(sorted(sys.modules)), flush=True)
    os._exit(0)
Loop._update = first
from robustplug.cli import main
main()
"""


def test_the_first_update_of_an_image_recipe_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    given = ["train", "--recipe", "pgd-at", "--quiet", "--set", "train.precision=float32"]
    command = [sys.executable, "-c", START, *given, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "robustplug.training.loop" in modules
    assert sorted({*modules} & {*HEAVY}) == []
