from __future__ import annotations

from robustplug.recipe.toml.lines import key_lines, line_of

TEXT = """\
# a comment
a.b = 1

"odd key" = { x = 1, y = { z = 2 } }
long = [
  1,  # [not.a.header]
  { k = 2 },
]
text = \"\"\"
[not.a.header]
c = 3
\"\"\"

[t.u]  # header
v = 1
[t]
w = 1
[[t.list]]
p = 1
  [t.list.inner]
  q = 1
[[t.list]]
p = 2
[[t.list.deep]]
r = 3
[[t.list.deep]]
[last]
s.t = "x"
"""


def test_every_key_has_its_line() -> None:
    lines = key_lines(TEXT)
    assert {
        ("a", "b"): 2,
        ("odd key", "y", "z"): 4,
        ("long",): 5,
        ("long", 1, "k"): 5,
        ("text",): 9,
        ("t", "u"): 14,
        ("t", "u", "v"): 15,
        ("t",): 16,
        ("t", "w"): 17,
        ("t", "list"): 18,
        ("t", "list", 0): 18,
        ("t", "list", 0, "p"): 19,
        ("t", "list", 0, "inner"): 20,
        ("t", "list", 0, "inner", "q"): 21,
        ("t", "list", 1): 22,
        ("t", "list", 1, "p"): 23,
        ("t", "list", 1, "deep", 0, "r"): 25,
        ("t", "list", 1, "deep", 1): 26,
        ("last", "s", "t"): 28,
    }.items() <= lines.items()
    assert ("not",) not in lines
    assert ("c",) not in lines


def test_lines_survive_windows_line_ends() -> None:
    assert key_lines(TEXT.replace("\n", "\r\n")) == key_lines(TEXT)


def test_an_unknown_key_is_on_the_line_of_its_table() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("t", "u", "missing", "x")) == 14
    assert line_of(lines, ("missing",)) is None
