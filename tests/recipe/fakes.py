"""Fake components: one of each shape that a recipe can hold. Their factories are never loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from robustplug.plugin.component import Component, Kind, NoOptions, Use, use
from robustplug.plugin.options import Count, NonNegative, Positive, Real, Rest
from robustplug.plugin.registry import Registry


@dataclass(frozen=True)
class Pgd:
    steps: Count = 10
    step_size: Positive | None = None
    restarts: Count = 1
    keep: Literal["last", "best"] = "last"
    shape: tuple[float, ...] = (1, 2.5)
    loss: Use | None = None


@dataclass(frozen=True)
class Blend:
    share: Real = 0.5
    inner: Annotated[Use, "perturbation"] = use("pgd", steps=3, loss=Use("ce", {"smoothing": 0.25}))


@dataclass(frozen=True)
class Ce:
    smoothing: Annotated[float, "a note"] = 0.0
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cat:
    eps_max: NonNegative
    eps_min: NonNegative = 0.0
    perturbation: Use = use("pgd", steps=7, step_size=2 / 255, keep="best")
    parts: Annotated[tuple[Use, ...], "loss"] = field(default_factory=lambda: (Use("ce"),))

    def __post_init__(self) -> None:
        if self.eps_min > self.eps_max:
            raise ValueError(f"eps_min: {self.eps_min} is above eps_max, {self.eps_max}")
        if self.eps_max == 9:
            raise ValueError("nine is not our number")


@dataclass(frozen=True)
class Torchvision:
    name: str
    weights: bool = False
    copy: int = 1  # hides a method of pydantic's models


@dataclass(frozen=True)
class Sgd:
    lr: Positive = 1
    nesterov: Literal["auto"] | bool = "auto"


class Opaque:
    """A type that no recipe can hold."""


@dataclass(frozen=True)
class Broken:
    eps: Opaque = field(default_factory=Opaque)


@dataclass(frozen=True)
class Loop:
    inner: Annotated[Use, "perturbation"] = use("loop")


@dataclass(frozen=True)
class Foreign:
    name: str
    arguments: Annotated[Mapping[str, Any], Rest()] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [key for key in self.arguments if key in ("bad", "worse")]
        if wrong:
            raise ExceptionGroup("arguments", [ValueError(f"{key} is not taken") for key in wrong])


@dataclass(frozen=True)
class Nested:
    perturbation: Use = use("blend", inner={"steps": 4, "loss": {"use": "ce", "smoothing": 0.75}})


@dataclass(frozen=True)
class Slanted:
    perturbation: Use = use("pgd", stepz=3, steps=0)


COMPONENTS: list[tuple[Kind, str, Any]] = [
    ("perturbation", "pgd", Pgd),
    ("perturbation", "fgsm", NoOptions),
    ("perturbation", "blend", Blend),
    ("perturbation", "loop", Loop),
    ("perturbation", "foreign", Foreign),
    ("loss", "ce", Ce),
    ("method", "cat", Cat),
    ("method", "erm", NoOptions),
    ("method", "broken", Broken),
    ("method", "slanted", Slanted),
    ("method", "nested", Nested),
    ("task", "digits", NoOptions),
    ("model", "small-cnn", NoOptions),
    ("model", "torchvision", Torchvision),
    ("optimizer", "sgd", Sgd),
    ("schedule", "constant", NoOptions),
    ("vicinity", "linf", NoOptions),
]


def fake_registry() -> Registry:
    registry = Registry()
    for kind, name, options in COMPONENTS:
        registry.add(kind, Component(name, "nowhere:Thing", options, summary=f"A fake {name}."), "fakes")
    registry.add("perturbation", Component("twice", "nowhere:Thing"), "fakes")
    registry.add("perturbation", Component("twice", "nowhere:Thing"), "others")
    return registry


TEXT = """\
schema = 1
name = "cat-digits"
seed = 0
[task]
use = "digits"
[model]
use = "small-cnn"
[method]
use = "cat"
eps_max = "8/255"
[method.perturbation]
use = "pgd"
steps = 10
[optimizer]
use = "sgd"
lr = 0.05
[train]
epochs = 20
batch_size = 128
[[evaluate.attack]]
use = "pgd"
steps = 50
restarts = 5
"""
