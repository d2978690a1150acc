"""Describe the machine and the software versions of a run."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from ..plugin.host import host

if TYPE_CHECKING:
    from ..devices.processes import Processes

PACKAGES = ("robustplug", "torch", "torchvision", "accelerate", "numpy", "safetensors", "scikit-learn")


# To read it takes milliseconds, and what is imported stays what it is.
@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def describe_environment(processes: Processes) -> dict[str, Any]:
    """Return versions, plugins, device and the git commit of the working folder, as JSON."""
    device = processes.device
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: _version(package) for package in PACKAGES},
        "plugins": {r.name: f"{r.distribution} {r.version}" for r in host().reports if r.status == "loaded"},
        "device": device.type,
        "device_name": name,
        "processes": processes.world,
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
    }
