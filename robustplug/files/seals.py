"""Seal what the program writes for itself: what it belongs to, and a digest that shows every change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .reading import Unreadable

SEAL = "seal"


class Strict(BaseModel):
    """Be the base of the types that files are parsed into: no conversions, no unknown keys, no changes."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


AnyModel = TypeVar("AnyModel", bound=BaseModel)


class _Seal(Strict):
    belongs: dict[str, str | int]
    sha256: str


def digest(body: Any) -> str:
    """Return the SHA-256 of a JSON value, as hexadecimal digits; the order of keys does not count."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def sealed(body: Mapping[str, Any], **belongs: str | int) -> dict[str, Any]:
    """Return a JSON object with a seal.

    Args:
        body: the object, without a key "seal".
        belongs: what it belongs to, for example run, recipe, epoch, batch, process.
    """
    plain = {key: value for key, value in body.items() if key != SEAL}
    return {**plain, SEAL: {"belongs": belongs, "sha256": digest([plain, belongs])}}


def opened(body: Any) -> tuple[dict[str, Any], dict[str, str | int]]:
    """Check a seal, and return the object without it, and what it belongs to.

    Raises:
        Unreadable: there is no seal, or the object was changed after it was sealed.
    """
    if not isinstance(body, dict) or SEAL not in body:
        raise Unreadable("has no seal")
    plain = {key: value for key, value in body.items() if key != SEAL}
    seal = parsed(_Seal, body[SEAL])
    if seal.sha256 != digest([plain, seal.belongs]):
        raise Unreadable("does not match its seal: it was changed after it was written")
    return plain, seal.belongs


def parsed(model: type[AnyModel], body: Any) -> AnyModel:
    """Parse a JSON value into a pydantic model, with the strict rules of JSON.

    Raises:
        Unreadable: the value does not fit; the message names the first places.
    """
    try:
        return model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        places = [
            f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}" for each in error.errors()[:3]
        ]
        raise Unreadable("is not as it was written: " + "; ".join(places)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable(f"is not as it was written: {error}") from error
