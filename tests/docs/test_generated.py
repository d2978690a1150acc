from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from robustplug.plugin import hookspecs

from .blocks import code_blocks
from .generated import FILES, ROOT, arxiv, made, parts

HOOKS = ROOT / "docs" / "hooks.md"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_made_from_the_code_is_up_to_date(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert parts(text), "it has no such part"
    assert made(text) == text, "write it anew: python -m tests.docs.generated"


def test_the_loop_is_shown_whole() -> None:
    shown = dict.fromkeys(of for _, of in parts((ROOT / "docs" / "the-loop.md").read_text()))
    names = ["Loop.epoch", "Loop._update", "Loop.compute", "differentiate", "views_of", "loss_of"]
    assert list(shown) == [f"robustplug.training.loop:{name}" for name in names]
    text = (ROOT / "docs" / "the-loop.md").read_text()
    assert '"""' not in text
    assert all(line in text for line in ("method.after_step(step, views)", "step.backward(total)"))


def test_every_method_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert "| [`trades`](plugins/robustplug_trades/README.md) |" in text
    assert "| `erm` |" in text
    assert (
        arxiv("A 2020, arXiv:2001.03994, §2")
        == "A 2020, [arXiv:2001.03994](https://arxiv.org/abs/2001.03994), §2"
    )


def signatures() -> dict[str, str]:
    """Return the signature of each hook as it is written in hookspecs.py."""
    tree = ast.parse(inspect.getsource(hookspecs))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: signature(node) for node in functions}


def signature(node: ast.FunctionDef) -> str:
    assert node.returns is not None
    return f"def {node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"


def test_every_hook_has_a_section_with_its_exact_signature() -> None:
    sections = re.split(r"^## ", HOOKS.read_text(encoding="utf-8"), flags=re.M)[1:]
    shown = {}
    for section in sections:
        name, _, body = section.partition("\n")
        (code,) = re.findall(r"^```py\n(.*?)^```$", body, re.M | re.S)
        shown[name] = " ".join(code.split())
        assert len(body.rpartition("```")[2].split()) > 5, f"nothing is said of {name}"
    assert shown == signatures()
    assert list(shown) == list(signatures()), "they come in the order of hookspecs.py"


def test_blocks_of_files_are_no_examples_to_run() -> None:
    languages = {block.language for block in code_blocks(ROOT / "docs" / "write-a-plugin.md")}
    assert languages == {"bash", "py", "toml"}
