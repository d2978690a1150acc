"""Property-based tests: mutations of what people and the program write, always the same ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# A few in every run of the tests, many under -m slow.
FEW, MANY = 12, 2000
how_many = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])

NASTY = st.sampled_from(
    [
        -1,
        0,
        10**30,
        1e308,
        -1e308,
        float("nan"),
        float("inf"),
        "",
        "../../x",
        "[red]x[/blue]",
        "\0",
        "a" * 5000,
        True,
    ]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | NASTY
TREES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def fuzz(strategy: st.SearchStrategy[Any], examples: int, body: Callable[[Any], None]) -> None:
    """Call `body` with examples of a strategy; it fails by raising."""
    quiet = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @quiet
    @given(strategy)
    def run(value: Any) -> None:
        body(value)

    run()


def places(tree: Any) -> list[tuple[Any, ...]]:
    """List the paths of all values in a tree of mappings and lists, the root last."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    return [*((key, *rest) for key, value in items for rest in places(value)), ()]


@st.composite
def mutated(draw: st.DrawFn, trees: st.SearchStrategy[Any], more: st.SearchStrategy[Any] = TREES) -> Any:
    """Draw a tree with one to three values replaced, removed, added or doubled."""
    tree = copy.deepcopy(draw(trees))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([place for place in places(tree) if place] or [("",)]))
        parent = tree
        for key in path:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add", "double"]))
        if action == "replace":
            parent[last] = draw(more)
        elif action == "remove":
            del parent[last]
        elif action == "double" and isinstance(parent[last], list):
            parent[last] = parent[last] * 2
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = draw(more)
        if not places(tree)[:-1]:
            break
    return tree


@st.composite
def mutated_text(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> bytes:
    """Draw a text with lines replaced, removed, doubled or exchanged, or with bytes in between."""
    lines = draw(texts).splitlines(keepends=True) or [""]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        action = draw(st.sampled_from(["value", "value", "value", "remove", "double", "exchange", "insert"]))
        name, equals, _ = lines[at].partition(" = ")
        if action == "value" and equals:
            lines[at] = f"{name} = {draw(VALUES)}\n"
        elif action == "remove" and len(lines) > 1:
            del lines[at]
        elif action == "double":
            lines.insert(at, lines[at])
        elif action == "exchange":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines.insert(at, draw(st.text(max_size=30)))
    data = "".join(lines).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(data)))
        data = data[:cut] + draw(st.binary(max_size=4)) + data[cut:]
    return data


VALUES = st.sampled_from(
    [
        *(
            "1",
            "-1",
            "0",
            "1e308",
            "nan",
            "-inf",
            "99999999999999999999999",
            '"text"',
            '""',
            "[]",
            "{}",
            "true",
        ),
        *(
            "[[1]]",
            '{use = "pgd"}',
            '{use = ""}',
            '["a", 1]',
            "1979-05-27",
            '"../../../etc/passwd"',
            "'[red]x[/blue]'",
        ),
        *(
            '"8/255"',
            '"1/0"',
            '"auto"',
            "[" * 80 + "]" * 80,
            '"\\u0000"',
            "{a = {b = {c = 1}}}",
            "[{}]",
            "0x10",
            "1_0",
        ),
    ]
)
