"""What the directories promise, read from the source itself."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import robustplug
from robustplug import api
from robustplug.plugin import hookspecs
from robustplug.plugin.component import KINDS
from robustplug.plugin.host import BUILTIN, REGISTRATION_HOOKS, host, registry

CORE = Path(robustplug.__file__).parent
PLUGINS = CORE.parent / "plugins"
CORE_FILES = sorted(path for path in CORE.rglob("*.py") if "templates" not in path.parts)
PLUGIN_FILES = sorted(PLUGINS.glob("robustplug_*/**/*.py"))
PACKAGES = sorted(path.parent.name for path in PLUGINS.glob("robustplug_*/__init__.py"))


def module_name(path: Path) -> str:
    root = PLUGINS if path.is_relative_to(PLUGINS) else CORE.parent
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST, typing: bool) -> Iterator[ast.AST]:
    """Yield all nodes, those under `if TYPE_CHECKING:` only when asked for."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child) and not typing:
            continue
        yield child
        yield from statements(child, typing)


def imports(path: Path, typing: bool = False) -> set[str]:
    """Return the absolute names of what a file imports, within functions too."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), typing):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{above}.{base}" if base else above
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(names: set[str], *modules: str) -> set[str]:
    return {name for name in names if any(f"{name}.".startswith(f"{module}.") for module in modules)}


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CORE.parent)) for path in paths]


def test_the_reading_of_imports_works(tmp_path: Path) -> None:
    names = imports(CORE / "subjects" / "trained.py")
    assert {"robustplug.runs.choose.stored_recipe", "robustplug.runs.checkpoint"} <= names
    assert "robustplug.subjects.assemble.assemble" in names
    assert "torch.nn" not in names
    assert "torch.nn" in imports(CORE / "subjects" / "trained.py", typing=True)
    assert "robustplug.builtin.tasks.TASKS" in imports(CORE / "builtin" / "__init__.py")
    assert len(CORE_FILES) > 50
    assert PACKAGES


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'plugins'}"},
    )


def test_imports_keep_to_the_rooms() -> None:
    """The contracts are in pyproject.toml."""
    done = lint_imports(CORE.parent)
    assert done.returncode == 0, done.stdout + done.stderr


MISPLACED = {
    "The built-in components import robustplug.api, as those of every plugin": (
        "builtin/maps.py",
        "from ..core.types import View",
    ),
    "The rooms of the core": ("core/random.py", "from ..run import train"),
    "No room and no module imports in a circle": ("core/types.py", "from .step import Step"),
    "The core imports no plugin": ("recipe/load.py", "import robustplug_cat"),
    "What declares, reads and commands names no torch at import": ("plugin/host.py", "import torch"),
    "Plugins import robustplug.api and robustplug.testing only": (
        "../plugins/robustplug_cat/method.py",
        "from robustplug.core.types import View",
    ),
}


def test_imports_out_of_place_are_found(tmp_path: Path) -> None:
    for name in ("robustplug", "plugins"):
        shutil.copytree(CORE.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CORE.parent / "pyproject.toml", tmp_path)
    for file, line in MISPLACED.values():
        with (tmp_path / "robustplug" / file).open("a") as source:
            source.write(f"\nif TYPE_CHECKING:\n    {line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    broken = {line.partition(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line}
    assert broken == set(MISPLACED)


def test_the_core_names_no_method() -> None:
    # A model that comes without a method has had no defence. Checkpoints hold averaged weights under "ema".
    methods = set(registry().names("method")) - {"erm", "ema"}
    assert {"pgd-at", "cat", "trades"} <= methods
    named = [
        f"{file.name}:{node.lineno}: {node.value}"
        for file in CORE_FILES
        if file.relative_to(CORE).parts[0] not in ("builtin", "testing")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in methods
    ]
    assert named == []


def test_declarations_cost_neither_torch_nor_pydantic() -> None:
    modules = ["robustplug.api", *PACKAGES, "robustplug.builtin", "robustplug.cli"]
    heavy = ["torch", "torchvision", "pydantic", "numpy", "sklearn", "accelerate", "rich", "matplotlib"]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = [heavy for heavy in {heavy} if heavy in sys.modules]\n"
        "    assert not loaded, f'{name} imports {loaded}'\n"
        "from robustplug.plugin.host import registry\n"
        "assert len(registry().names('method')) > 3, 'the registry is empty'\n"
        f"loaded = [heavy for heavy in {heavy} if heavy in sys.modules]\n"
        "assert not loaded, f'filling the registry imports {loaded}'\n"
    )
    # The plugins of the checkout, whatever folder pytest was started from.
    path = [str(CORE.parent), str(PLUGINS), *sys.path]
    code = f"import sys\nsys.path[:] = {path}\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


HOOKS = [
    name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("robustplug_")
]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_and_typed(name: str) -> None:
    hook = getattr(hookspecs, name)
    assert hook.__doc__
    assert hook.__doc__.strip().split("\n")[0].endswith(".")
    assert "return" in hook.__annotations__
    assert set(inspect.signature(hook).parameters) <= set(hook.__annotations__)


def test_every_registration_hook_is_known_and_used_by_the_built_in_plugin() -> None:
    observers = {"robustplug_run_start", "robustplug_epoch_end", "robustplug_run_end"}
    others = {"robustplug_commands", "robustplug_figures"}
    assert set(REGISTRATION_HOOKS.values()) | observers | others == set(HOOKS)
    assert tuple(REGISTRATION_HOOKS) == KINDS
    manager = host().manager
    for name in REGISTRATION_HOOKS.values():
        assert BUILTIN in {impl.plugin_name for impl in getattr(manager.hook, name).get_hookimpls()}, name


def test_every_kind_has_a_component_with_a_summary_that_loads() -> None:
    for kind, components in registry().by_kind().items():
        assert components, kind
        for component in components:
            assert component.summary, f"{kind} {component.name} has no summary"
            assert "\n" not in component.summary
            assert callable(component.load())


def test_the_api_is_what_it_lists() -> None:
    # Constants first, as ruff sorts them.
    assert list(api.__all__) == sorted(set(api.__all__), key=lambda name: (not name.isupper(), name))
    for name in api.__all__:
        assert getattr(api, name) is not None
    lazy = {name for names in api._LAZY.values() for name in names.split()}
    eager = {name for name in vars(api) if not name.startswith("_")} - lazy
    eager -= {"annotations", "importlib", "Any", "TYPE_CHECKING"}
    # Submodules that were imported by other tests do not count.
    eager = {name for name in eager if not inspect.ismodule(getattr(api, name))}
    assert lazy | eager == set(api.__all__)
    with pytest.raises(AttributeError, match=r"robustplug\.api has no 'nothing'"):
        _ = api.nothing


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((CORE / "api.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if is_type_checking(node)]
    seen = {
        str(node.module): " ".join(alias.name for alias in node.names)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == api._LAZY


@pytest.mark.parametrize(
    ("files", "limit"), [(CORE_FILES, 400), (PLUGIN_FILES, 300)], ids=["core", "plugins"]
)
def test_files_stay_small(files: list[Path], limit: int) -> None:
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: lines for name, lines in lengths.items() if lines > limit} == {}


def test_few_modules_lie_loose_and_no_folder_is_crowded() -> None:
    assert sorted(path.name for path in CORE.glob("*.py")) == [
        "__init__.py",
        "__main__.py",
        "api.py",
        "errors.py",
        "run.py",
        "worker.py",
    ]
    crowds = Counter(path.parent for path in CORE_FILES + PLUGIN_FILES)
    assert {str(folder): count for folder, count in crowds.items() if count > 15} == {}


def test_no_small_file_has_one_user() -> None:
    used = {file: imports(file, typing=True) for file in CORE_FILES}
    for file in CORE_FILES:
        # The command line and the built-in components are found by name.
        named = file.name.startswith("__") or file.relative_to(CORE).parts[0] in ("builtin", "cli")
        if len(file.read_text(encoding="utf-8").splitlines()) < 30 and not named:
            assert sum(bool(within(names, module_name(file))) for names in used.values()) > 1, file


def test_every_room_says_what_it_is_for() -> None:
    rooms = [path for path in CORE_FILES if path.name == "__init__.py"]
    assert [str(path) for path in rooms if not ast.get_docstring(ast.parse(path.read_text()))] == []


BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
BANNED_ATTRIBUTES = {
    "torch.load",
    "torch.save",
    "torch.manual_seed",
    "torch.seed",
    "torch.cuda.manual_seed_all",
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
}


@pytest.mark.parametrize("file", CORE_FILES + PLUGIN_FILES, ids=ids(CORE_FILES + PLUGIN_FILES))
def test_nothing_is_evaluated_or_pickled_and_no_global_seed_is_set(file: Path) -> None:
    assert not within(imports(file, typing=True), *BANNED_MODULES)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "torch.load" and "weights_only=True" in map(ast.unparse, node.keywords):
                continue
            assert called not in BANNED_CALLS | BANNED_ATTRIBUTES, f"line {node.lineno}: {called}"
