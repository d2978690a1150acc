"""JSON Schema of recipes for editors, including everything that the installed plugins add."""

from __future__ import annotations

import json
import re
from typing import Any

from ..plugin.component import Component, Kind, Slot, Use
from ..plugin.host import registry as installed
from ..plugin.registry import Registry
from .aliases import FIELD, OURS
from .options import COMMON, Recipe
from .shape import Shape, shape

Json = dict[str, Any]

_FROM: Json = {"type": "string", "description": "run folder, file or name of the initial weights"}
_OF_A_RUN: Json = {
    "type": "object",
    "title": "the model of a run",
    "description": "A model that starts from a run folder and names no component is that of the run.",
    "properties": {"use": False, "from": _FROM},
    "required": ["from"],
}


def recipe_schema(registry: Registry | None = None) -> Json:
    """Return the JSON Schema (draft 2020-12) of recipes that use the installed components.

    Each kind has a definition that allows any of its components; each component has its own definition. A
    component whose options cannot be read is left out.

    Args:
        registry: the available components; by default the installed ones.
    """
    known = installed() if registry is None else registry
    definitions: Json = {}
    for kind, components in known.by_kind().items():
        choices = []
        for component in components:
            try:
                definition, extra = _component(kind, component)
            except Exception:  # broken options of a plugin: reading a recipe that uses them reports it
                continue
            definitions |= extra | {_key(kind, component.name): definition}
            choices += _choices(kind, component)
        if kind == "model":
            choices.append(_OF_A_RUN)
        definitions[kind] = {"anyOf": choices} if choices else {"not": {}}
    form = shape(Recipe)
    properties, extra = _properties(form, "recipe")
    definitions |= extra
    evaluate = definitions.get("recipe.evaluate") or properties["evaluate"]
    if OURS in evaluate.get("properties", {}):
        evaluate["properties"] = {**evaluate["properties"], FIELD: evaluate["properties"][OURS]}
    # A slot's default may name a component that is not installed.
    for name in re.findall(r'"#/\$defs/([^"]+)"', json.dumps([definitions, properties])):
        definitions.setdefault(name, {"not": {}})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "robustplug recipe",
        "type": "object",
        "properties": properties,
        "required": _required(form),
        "additionalProperties": False,
        "$defs": definitions,
    }


def _key(kind: Kind, name: str) -> str:
    return f"{kind}.{name}"


def _ref(kind: Kind, name: str = "") -> str:
    return f"#/$defs/{_key(kind, name) if name else kind}"


def _choices(kind: Kind, component: Component) -> list[Json]:
    """Return references to a component's schema, with the required keys.

    The schema itself requires none of them, since a slot's default may provide them.
    """
    required = _required(shape(component.options))
    choices: list[Json] = [{"$ref": _ref(kind, component.name), "required": ["use", *required]}]
    if "name" in required:
        rest = [key for key in required if key != "name"]
        variant = {"properties": {"use": _variant(component)}, "required": ["use", *rest]}
        choices.append({"$ref": _ref(kind, component.name), **variant})
    return choices


def _variant(component: Component) -> Json:
    return {"type": "string", "pattern": f"^{component.name}:."}


def _component(kind: Kind, component: Component) -> tuple[Json, Json]:
    """Return a component's schema, and the definitions that it refers to."""
    form = shape(component.options)
    name: Json = {"const": component.name}
    if "name" in form.plain_names:
        name = {"anyOf": [name, _variant(component)]}
    properties, extra = _properties(form, _key(kind, component.name))
    if component.variants:
        properties["variant"] = {"enum": list(component.variants)}
    if kind == "model":
        properties["from"] = _FROM
    if kind in COMMON:
        common, more = _properties(shape(COMMON[kind]), kind)
        properties, extra = common | properties, extra | more
    text = " ".join(part for part in (component.summary, component.paper) if part)
    return (
        {
            "type": "object",
            "title": f"{kind} {component.name}",
            **({"description": text} if text else {}),
            "properties": {"use": name, **properties},
            "additionalProperties": form.rest is not None,
        },
        extra,
    )


def _required(form: Shape) -> list[str]:
    return [name for name in form.names if name not in form.defaults and name not in form.sections]


def _properties(form: Shape, owner: str) -> tuple[Json, Json]:
    """Return the schemas of a table's keys, and the definitions that they refer to."""
    plain = form.plain.model_json_schema(ref_template=f"#/$defs/{owner}.{{model}}")
    extra = {f"{owner}.{key}": value for key, value in plain.get("$defs", {}).items()}
    properties = {key: _without_null(value) for key, value in plain.get("properties", {}).items()}
    for name, slot in form.slots.items():
        properties[name] = _slot(slot, form.defaults.get(name))
    for name, section in form.sections.items():
        inner, inner_extra = _properties(shape(section), f"{owner}.{name}")
        properties[name] = {"type": "object", "properties": inner, "additionalProperties": False}
        extra |= inner_extra
    for name, section in form.arrays.items():
        inner, inner_extra = _properties(shape(section), f"{owner}.{name}")
        item = {"type": "object", "properties": inner, "additionalProperties": False}
        properties[name] = {"type": "array", "items": item | {"required": _required(shape(section))}}
        extra |= inner_extra
    return properties, extra


def _slot(slot: Slot, default: Any) -> Json:
    reference = {"$ref": _ref(slot.kind)}
    if slot.many:
        return {"type": "array", "items": reference}
    if not isinstance(default, Use):
        return reference
    # A table for the default component need not name it, nor repeat the default's options.
    return {"anyOf": [reference, {"$ref": _ref(slot.kind, default.name.partition(":")[0])}]}


def _without_null(schema: Json) -> Json:
    """Remove what TOML cannot express."""
    kept = {key: value for key, value in schema.items() if key != "title"}
    if kept.get("default", ...) is None:
        del kept["default"]
    if "anyOf" in kept:
        choices = [choice for choice in kept["anyOf"] if choice != {"type": "null"}]
        kept |= {"anyOf": choices}
        if len(choices) == 1:
            del kept["anyOf"]
            kept |= choices[0]
    return kept
