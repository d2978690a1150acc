"""Kinds of damage to the content of a file: its JSON, its lines, its tensors, its TOML."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable
from typing import Any

from damage_files import Damage, Inapplicable, Target

DEEP = "[" * 3000 + "]" * 3000

# JSON, and lines of JSON.

Place = tuple[Any, Any]


def _places(tree: Any) -> list[Place]:
    found: list[Place] = []
    if isinstance(tree, dict | list):
        items: Any = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
        for key, value in items:
            found += [(tree, key), *_places(value)]
    return found


def _json(change: Callable[[Any, random.Random], str | None]) -> Damage:
    def damage(target: Target, rng: random.Random) -> None:
        path = target.path
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = path.suffix == ".json"
        at = 0 if whole else rng.randrange(len(lines)) if lines else None
        if at is None:
            raise Inapplicable
        tree = json.loads("".join(lines) if whole else lines[at])
        before = json.dumps(tree)
        stand_in = change(tree, rng)
        text = json.dumps(tree)
        if text == before:
            raise Inapplicable
        if stand_in is not None:
            text = text.replace('"$stand-in"', stand_in)
        path.write_text(
            text if whole else "".join([*lines[:at], text + "\n", *lines[at + 1 :]]), encoding="utf-8"
        )

    return damage


def _leaves(tree: Any, kind: Any) -> list[Place]:
    return [
        (parent, key)
        for parent, key in _places(tree)
        if isinstance(parent[key], kind) and not (kind is not bool and isinstance(parent[key], bool))
    ]


def _pick(tree: Any, rng: random.Random, kind: Any = object) -> Place:
    found = _leaves(tree, kind)
    if not found:
        raise Inapplicable
    return rng.choice(found)


def _number(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng, int | float)
    parent[key] += rng.choice((1, -1, 0.1, parent[key] or 1))


def _huge(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng, int | float)
    parent[key] = rng.choice((10**30, 10**12, 1e308, -(10**18)))


def _negative(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng, int | float)
    parent[key] = -abs(parent[key]) - rng.choice((0, 1))


def _string(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng, str)
    text = parent[key]
    changed = [
        text + "x",
        text[:-1],
        "",
        "../" * 4 + "etc/passwd",
        "[red]x[/blue]",
        text.swapcase(),
        "a" * 5000,
    ]
    parent[key] = rng.choice(changed)


def _list(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng, list)
    value = parent[key]
    parent[key] = rng.choice(([], value[:-1], value + value[-1:], value[::-1], value * 3))


def _type(tree: Any, rng: random.Random) -> None:
    parent, key = _pick(tree, rng)
    parent[key] = rng.choice(("text", 7.5, 3, [], {}, [[1]], {"a": {"b": 1}}, True, [None]))


def _null(tree: Any, rng: random.Random) -> str | None:
    parent, key = _pick(tree, rng)
    parent[key] = "$stand-in"
    return rng.choice(("null", "NaN", "Infinity", "-Infinity"))


def _deep(tree: Any, rng: random.Random) -> str:
    parent, key = _pick(tree, rng)
    parent[key] = "$stand-in"
    return rng.choice((DEEP, DEEP * 1, '{"a":' * 2000 + "1" + "}" * 2000, "[" * 100_000))


def _extra(tree: Any, rng: random.Random) -> None:
    found = [tree, *(parent[key] for parent, key in _leaves(tree, dict))]
    tables = [table for table in found if isinstance(table, dict)]
    if not tables:
        raise Inapplicable
    rng.choice(tables)[rng.choice(("extra", "epoch", "__class__", "seal", ""))] = rng.choice((1, "x", [], {}))


def _key(tree: Any, rng: random.Random) -> None:
    found = [(parent, key) for parent, key in _places(tree) if isinstance(parent, dict)]
    if not found:
        raise Inapplicable
    parent, key = rng.choice(found)
    del parent[key]


def _forged(change: Callable[[Any, random.Random], str | None]) -> Damage:
    """Change the JSON of a sealed file, and seal it again."""

    def damage(target: Target, rng: random.Random) -> None:
        from robustplug.files.seals import SEAL, opened, sealed

        def inside(tree: Any, rng: random.Random) -> None:
            if not isinstance(tree, dict) or SEAL not in tree:
                raise Inapplicable
            body, belongs = opened(tree)
            if change(body, rng) is not None:
                raise Inapplicable
            tree.clear()
            tree.update(sealed(body, **belongs))

        _json(inside)(target, rng)

    return damage


def _lines(change: Callable[[list[str], random.Random], list[str]]) -> Damage:
    def damage(target: Target, rng: random.Random) -> None:
        lines = target.path.read_text(encoding="utf-8").splitlines(keepends=True)
        changed = change(list(lines), rng)
        if changed == lines or len(lines) < 2:
            raise Inapplicable
        target.path.write_text("".join(changed), encoding="utf-8")

    return damage


def _shuffled(lines: list[str], rng: random.Random) -> list[str]:
    rng.shuffle(lines)
    return lines


def _doubled(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return [*lines[:at], lines[at], *lines[at:]]


def _dropped(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return [*lines[:at], *lines[at + 1 :]]


# Tensors.


def _tensors(change: Callable[[dict[str, Any], random.Random], dict[str, Any]]) -> Damage:
    def damage(target: Target, rng: random.Random) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(target.path, "pt") as file:
            stated = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not tensors:
            raise Inapplicable
        save_file(
            {name: value.contiguous() for name, value in change(tensors, rng).items()}, target.path, stated
        )

    return damage


def _one(change: Callable[[Any, random.Random], Any]) -> Damage:
    def one(tensors: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        sizeable = sorted(name for name, value in tensors.items() if value.numel() > 1)
        if not sizeable:
            raise Inapplicable
        name = "x" if "x" in tensors else rng.choice(sizeable)
        return {**tensors, name: change(tensors[name], rng)}

    return _tensors(one)


def _grey(value: Any, rng: random.Random) -> Any:
    return value.float().fill_(0.5) if value.is_floating_point() else value.clone().fill_(1)


def _nan(value: Any, rng: random.Random) -> Any:
    if not value.is_floating_point():
        raise Inapplicable
    return value.clone().fill_(float("nan"))


def _integer(value: Any, rng: random.Random) -> Any:
    import torch

    return value.to(torch.int64)


def _wider(value: Any, rng: random.Random) -> Any:
    import torch

    return value.to(torch.float64)


def _reshaped(value: Any, rng: random.Random) -> Any:
    return rng.choice((value.flatten(), value[:-1], value[None], value.flatten()[:1]))


def _rolled(value: Any, rng: random.Random) -> Any:
    return value.roll(1, 0)


def _renamed(tensors: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    name = rng.choice(sorted(tensors))
    return {**{key: value for key, value in tensors.items() if key != name}, f"{name}.x": tensors[name]}


def _missing(tensors: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key != rng.choice(sorted(tensors))}


# TOML.


def _toml(change: Callable[[str, Any, random.Random], str]) -> Damage:
    def damage(target: Target, rng: random.Random) -> None:
        text = target.path.read_text(encoding="utf-8")
        changed = change(text, tomllib.loads(text), rng)
        if changed == text:
            raise Inapplicable
        target.path.write_text(changed, encoding="utf-8")

    return damage


VALUES = (
    *(
        "1e308",
        "-1",
        "0",
        "nan",
        "inf",
        "99999999999999999999",
        '"text"',
        "[]",
        "{}",
        "true",
        "[[[1]]]",
        '""',
    ),
    *(
        '"[red]x[/blue]"',
        '"../../../../etc/passwd"',
        '"' + "a" * 5000 + '"',
        "[" * 300 + "]" * 300,
        '{use = "pgd"}',
    ),
)


def _value(text: str, tree: Any, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    at = rng.choice(
        [number for number, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    )
    name, _, _ = lines[at].partition(" = ")
    lines[at] = f"{name} = {rng.choice(VALUES)}\n"
    return "".join(lines)


def _digit(text: str, tree: Any, rng: random.Random) -> str:
    digits = [at for at, character in enumerate(text) if character.isdecimal()]
    at = rng.choice(digits)
    return text[:at] + rng.choice("0123456789") + text[at + 1 :]


def _added(text: str, tree: Any, rng: random.Random) -> str:
    more = (
        "extra = 1\n",
        "[extra]\na = 1\n",
        "[train]\n",
        "\x00",
        "\ufeff",
        "a = " + "[" * 4000 + "]" * 4000 + "\n",
    )
    extra = rng.choice(more)
    return extra + text if rng.random() < 0.5 else text + extra


_CHANGES: dict[str, Callable[[Any, random.Random], str | None]] = {
    "a number": _number,
    "a huge number": _huge,
    "a negative number": _negative,
    "a string": _string,
    "a list": _list,
    "a wrong type": _type,
    "NaN or null": _null,
    "deep nesting": _deep,
    "an extra key": _extra,
    "a removed key": _key,
}
JSON: dict[str, Damage] = {name: _json(change) for name, change in _CHANGES.items()}
FORGED: dict[str, Damage] = {f"forged: {name}": _forged(change) for name, change in _CHANGES.items()}
LINES: dict[str, Damage] = {
    "lines in another order": _lines(_shuffled),
    "a doubled line": _lines(_doubled),
    "a removed line": _lines(_dropped),
}
TENSORS: dict[str, Damage] = {
    "grey": _one(_grey),
    "NaN": _one(_nan),
    "integers": _one(_integer),
    "another dtype": _one(_wider),
    "another shape": _one(_reshaped),
    "rolled": _one(_rolled),
    "a renamed tensor": _tensors(_renamed),
    "a missing tensor": _tensors(_missing),
}
TOML: dict[str, Damage] = {
    "a value": _toml(_value),
    "a digit": _toml(_digit),
    "something added": _toml(_added),
}
