"""An environment of its own, in which robustplug is installed as a user would have it.

The example is a project of its own: its tests run where it is installed, not here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

import robustplug

collect_ignore = ["robustplug_example"]

ROOT = Path(robustplug.__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """Run things in an environment; nothing is downloaded there.

    Attributes:
        folder: where things run.
        scripts: of the environment.
        variables: of the processes.
    """

    folder: Path
    scripts: Path
    variables: dict[str, str]

    def run(self, command: str, *arguments: str | Path, cwd: Path | None = None, code: int = 0) -> str:
        """Run a command of the environment and return what it printed."""
        return self.call([str(self.scripts / command), *map(str, arguments)], cwd, code)

    def call(self, command: list[str], cwd: Path | None = None, code: int = 0) -> str:
        """Run any command and return what it printed."""
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, f"{command}:\n{done.stdout}"
        return done.stdout


def install(folder: Path, name: str) -> None:
    """Leave what an installer leaves beside the package of a new plugin."""
    package = f"robustplug_{name.replace('-', '_')}"
    made = folder / f"{package}-0.1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: robustplug-{name}\nVersion: 0.1.0\n")
    (made / "entry_points.txt").write_text(f"[robustplug]\n{name} = {package}\n")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Build and install robustplug in a fresh environment; the libraries are those that run the tests."""
    pytest.importorskip("hatchling")
    root = tmp_path_factory.mktemp("downstream")
    venv.create(root / "venv", with_pip=True)
    scripts = root / "venv" / ("Scripts" if os.name == "nt" else "bin")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "ROBUSTPLUG"))}
    variables |= {
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    # What `pip install` would download is there already.
    variables |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1", "PIP_NO_INDEX": "1"}
    variables |= {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    made = Environment(root, scripts, variables)
    packages = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(packages, "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    made.run("python", "-m", "pip", "install", ROOT)
    return made
