from __future__ import annotations

from typing import Any

import pytest

from robustplug.recipe.toml.overrides import apply_override, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('{use = "pgd"}', {"use": "pgd"}),
        ('"10"', "10"),
        ("8/255", "8/255"),
        ("robust", "robust"),
        ("2024-01-31", "2024-01-31"),
        ("1\nother = 2", "1\nother = 2"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_values_are_toml_or_else_strings(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_overrides_change_what_is_there_and_make_what_is_not() -> None:
    data: dict[str, Any] = {"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}]}
    assert apply_override(data, "a.b = 5") == ("a", "b")
    assert apply_override(data, "list.1.c=7") == ("list", 1, "c")
    assert apply_override(data, "x.y.z=8=9") == ("x",)
    assert apply_override(data, 'a."b.c"=1') == ("a", "b.c")
    assert data == {
        "a": {"b": 5, "b.c": 1},
        "list": [{"c": 1}, {"c": 7}],
        "x": {"y": {"z": "8=9"}},
    }


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("a", "write key=value"),
        ("a.b=", "write key=value"),
        ("=1", "not a key"),
        ("a b=1", "not a key"),
        ("a..b=1", "not a key"),
        ("a.b.c=1", "a.b is not a table, so it has no c"),
        ("list.2.c=1", "has no entry 2: its entries are 0 to 1"),
        ("list.c=1", "has no entry c"),
        ("list.-1.c=1", "has no entry -1"),
        ("empty.0.c=1", "it is empty"),
    ],
)
def test_bad_overrides_say_why(override: str, says: str) -> None:
    data = {"a": {"b": 1}, "list": [{}, {}], "empty": []}
    with pytest.raises(ValueError) as caught:
        apply_override(data, override)
    assert says in str(caught.value)
