"""A dry run of the benchmark of a GPU executes every statement but those that are listed here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Statements of CUDA alone, by their first line.
CUDA = {
    "device.py": [
        'found["device"] = torch.cuda.get_device_name()',
        'found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30)',
        'found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]',
        "torch.cuda.synchronize()",
        "side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]",
        "side.wait_stream(torch.cuda.current_stream())",
        "with torch.cuda.stream(side):",
        "for _ in range(3):",
        "work()",
        "torch.cuda.current_stream().wait_stream(side)",
        "graph = torch.cuda.CUDAGraph()",
        "with torch.cuda.graph(graph):",
        "work()",
        "replay: Work = graph.replay",
        "return replay",
        "yield",
        "return",
        "gc.collect()",
        "torch.cuda.empty_cache()",
    ],
}
# What is done where something lacks, fails or takes too long.
OTHERWISE = {
    "gpu.py": [
        'print("there is no GPU that torch can use; --dry-run runs every line on the CPU", file=sys.stderr)',
        "return 2",
        'report.say(f"without our own rows, since packages are missing: {missing(NEEDED)}")',
    ],
    "bits.py": [
        'report.leave_out("bits", f"packages are missing: {lacking}")',
        "return",
        'report.leave_out(f"bits: {name}", f"it needs about {longest:.0f} s, and {left:.0f} s are left")',
        "continue",
    ],
    "cifar.py": [
        'raise pickle.UnpicklingError(f"{module}.{name} is no part of CIFAR-10")',
        "raise ValueError(",
    ],
    "device.py": [
        "break",
    ],
    "installed.py": [
        'project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]',
        'folder = Path(tempfile.mkdtemp(prefix="robustplug-clone-"))',
        'stated = folder / "robustplug-0.dist-info"',
        "stated.mkdir()",
        'version = project.get("version", "0")',
        '(stated / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: robustplug\\nVersion: {version}\\n")',  # noqa: E501
        "lines = []",
        'for group, points in project["entry-points"].items():',
        'lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]',
        '(stated / "entry_points.txt").write_text("\\n".join(lines))',
        "sys.path.append(str(folder))",
    ],
    "ours.py": [
        "break",
        'say("ours, captured and compiled", "this version has no train.fast")',
        'return [fast for fast in fasts if fast == "off"]',
    ],
    "report.py": [
        'self.leave_out(name, f"it needs {least:.0f} s, and {max(0.0, self._end - began):.0f} s are left")',
        "self.failed = True",
        "text = traceback.format_exc()",
        'self.put("errors", name, text)',
        "self.leave_out(name, f\"{type(error).__name__}: {' '.join(str(error).split())[:300]}\")",
        'self.left_out.append({"what": what, "why": why})',
        'self.say(f"left out: {what}: {why}")',
        "self.write()",
        "return",
    ],
    "robust.py": [
        'why = f"packages are missing: {lacking}" if lacking else "no data are given: --data FOLDER"',
        'report.leave_out("training on CIFAR-10", why)',
        "return",
        'self.report.leave_out(what, "no network was trained")',
        "return",
        "return",
        'why = "neither pyautoattack nor autoattack is installed: pip install pyautoattack"',
        'report.leave_out("AutoAttack, the reference", why)',
        'report.leave_out(f"AutoAttack: images from {start} on", f"{left:.0f} s are left")',
        "break",
        "continue",
        "return None",
    ],
    "table.py": [
        'leave_out(name, f"it is not installed: pip install {package}")',
        'leave_out("ours", f"packages are missing: {lacking}")',
        "return found",
        'report.leave_out(f"{name}: {row}", "no time is left")',
        "continue",
        "report.failed = True",
        "report.leave_out(",
        'report.leave_out("all methods", f"packages are missing: {lacking}")',
        "return",
        "report.leave_out(",
        "continue",
        "report.failed = True",
        "report.leave_out(",
        "continue",
        'report.leave_out(f"all methods: {name}, {fast}", "no time to compile is left")',
        "continue",
    ],
}
PRELUDE = """
import atexit, builtins, json
from pathlib import Path
builtins._ran = set()
atexit.register(lambda: Path({out!r}).write_text(json.dumps(sorted(builtins._ran))))
"""


class Noting(ast.NodeTransformer):
    """Let a module note each statement that it executes, by its line."""

    def __init__(self, name: str) -> None:
        self.name, self.lines = name, list[int]()

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for part in ("body", "orelse", "finalbody"):
            statements = getattr(node, part, None)
            if isinstance(statements, list) and statements:
                setattr(node, part, [each for known in statements for each in self.noted(known)])
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        return node if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def noted(self, statement: ast.stmt) -> list[ast.stmt]:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if docstring or (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            return [statement]
        self.lines.append(statement.lineno)
        text = f"__import__('builtins')._ran.add(({self.name!r}, {statement.lineno}))"
        return [*ast.parse(text).body, statement]


def copied(folder: Path, out: Path) -> dict[str, list[int]]:
    """Copy the benchmark, beside links to what it measures; return the lines of its statements, by file."""
    for name in ("robustplug", "plugins", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "benchmarks" / "gpu_parts").mkdir(parents=True)
    source, found = ROOT / "benchmarks", dict[str, list[int]]()
    for path in (source / "gpu.py", *sorted((source / "gpu_parts").glob("*.py"))):
        noting = Noting(path.name)
        tree: Any = noting.visit(ast.parse(path.read_text(encoding="utf-8")))
        if path.name == "gpu.py":  # after the docstring and `from __future__ import annotations`
            tree.body[2:2] = ast.parse(PRELUDE.format(out=str(out))).body
        copy = folder / "benchmarks" / path.relative_to(source)
        copy.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
        found[path.name] = noting.lines
    return found


def test_the_copy_notes_what_it_executes(tmp_path: Path) -> None:
    text = "def f(x):\n    if x:\n        return 1\n    return 2\nfound = f(True)\n"
    noting = Noting("a.py")
    tree: Any = ast.fix_missing_locations(noting.visit(ast.parse(text)))
    code = PRELUDE.format(out=str(tmp_path / "ran")) + ast.unparse(tree) + "\nassert found == 1\n"
    subprocess.run([sys.executable, "-c", code], check=True)
    ran = {line for _, line in json.loads((tmp_path / "ran").read_text())}
    assert sorted({*noting.lines} - ran) == [4]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_dry_run_executes_every_statement_but_the_listed_ones(tmp_path: Path) -> None:
    out = tmp_path / "ran.json"
    lines = copied(tmp_path, out)
    script = tmp_path / "benchmarks" / "gpu.py"
    command = [sys.executable, str(script), "--dry-run", "--minutes", "60", "--json", str(tmp_path / "json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {(name, line) for name, line in json.loads(out.read_text())}
    left: dict[str, list[str]] = {}
    for name, own in lines.items():
        path = ROOT / "benchmarks" / ("" if name == "gpu.py" else "gpu_parts") / name
        text = path.read_text(encoding="utf-8").splitlines()
        missed = [text[line - 1].strip() for line in sorted(own) if (name, line) not in ran]
        if missed:
            left[name] = missed
    listed = {name: sorted([*CUDA.get(name, []), *OTHERWISE.get(name, [])]) for name in {**CUDA, **OTHERWISE}}
    assert {name: sorted(texts) for name, texts in left.items()} == listed
