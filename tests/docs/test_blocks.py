from __future__ import annotations

from pathlib import Path

import pytest

from .blocks import calls, code_blocks, command_lines

TEXT = """\
Say `robustplug show cat` or `robustplug`.

```bash
pip install x && robustplug train --recipe a.toml   # robustplug nothing
python -m robustplug plugins | less
robustplug train \\
  --set "a b=1"
```

- a list

  ```python
  if True:
      pass
  ```
"""


def test_blocks_and_lines_are_found(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text(TEXT)
    bash, python = code_blocks(file)
    assert (bash.language, bash.line) == ("bash", 4)
    assert (python.language, python.line, python.text) == ("python", 13, "if True:\n    pass\n")
    lines = list(command_lines(file))
    assert [line.line for line in lines] == [4, 5, 6, 1]
    assert [call for line in lines for call in calls(line.text)] == [
        ["train", "--recipe", "a.toml"],
        ["plugins"],
        ["train", "--set", "a b=1"],
        ["show", "cat"],
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("uv run robustplug train --recipe cat", [["train", "--recipe", "cat"]]),
        (
            "torchrun --nproc-per-node 2 -m robustplug plugins; robustplug show a",
            [["plugins"], ["show", "a"]],
        ),
        ("X=1 pip install robustplug", []),
        ("cd robustplug && pytest", []),
    ],
)
def test_calls(line: str, expected: list[list[str]]) -> None:
    assert list(calls(line)) == expected
