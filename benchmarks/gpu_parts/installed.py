"""What is installed, and a clone that is not."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What robustplug imports to train, to evaluate and to audit, by the name under which it is installed.
NEEDED = {
    "accelerate": "accelerate",
    "click": "click",
    "filelock": "filelock",
    "numpy": "numpy",
    "PIL": "pillow",
    "pluggy": "pluggy",
    "pydantic": "pydantic",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "tomli_w": "tomli-w",
}


def missing(modules: dict[str, str]) -> str:
    """Return the command that installs the modules that are missing; "" if none is."""
    lacking = [package for module, package in modules.items() if importlib.util.find_spec(module) is None]
    return f"pip install {' '.join(lacking)}" if lacking else ""


def provide_clone() -> None:
    """Import robustplug and its plugins from this clone, whether or not it is installed.

    Plugins are found by entry points, which only an installed distribution has. Where there is none, those of
    pyproject.toml are stated in a folder for this process.
    """
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    if any(metadata.entry_points(group="robustplug")):
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = Path(tempfile.mkdtemp(prefix="robustplug-clone-"))
    stated = folder / "robustplug-0.dist-info"
    stated.mkdir()
    version = project.get("version", "0")
    (stated / "METADATA").write_text(f"Metadata-Version: 2.1\nName: robustplug\nVersion: {version}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (stated / "entry_points.txt").write_text("\n".join(lines))
    sys.path.append(str(folder))
