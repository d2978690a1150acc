from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import pytest

import robustplug.plugin.build as building
from robustplug.plugin.build import build
from robustplug.plugin.component import Component, MethodOptions, NoOptions, Slot, Use, slots, use
from robustplug.plugin.registry import Registry


@dataclass
class Melted:
    steps: int = 1


@dataclass(frozen=True)
class Inner:
    steps: int = 1


@dataclass(frozen=True)
class Outer:
    name: str = ""
    loss: Use = use("ce")
    inner: Annotated[Use, "perturbation"] = use("pgd", steps=3)
    noted: Annotated[Use, "a note", "schedule"] = use("cosine")
    vicinity: Use | None = None
    other: Annotated[Optional[Use], "task"] = None  # noqa: UP045
    many: Annotated[tuple[Use, ...], "loss"] = ()
    number: Annotated[int, "loss"] = 3
    pair: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Nameless:
    thing: Use = use("ce")


class Thing:
    """Remembers what it was built with."""

    class Nested:
        """Something inside."""

    def __init__(self, options: Any, **parts: Any) -> None:
        self.options, self.parts = options, parts


HERE = f"{__name__}:Thing"


@pytest.mark.parametrize("name", ["cat", "pgd-at", "resnet18", "l2", "wrn-28-10", "3d"])
def test_kebab_case_names_are_taken(name: str) -> None:
    assert Component(name, "a:b").name == name


@pytest.mark.parametrize(
    "name", ["", "Cat", "my_method", "my method", "-cat", "cat-", "a--b", "chât", "cat\n", "a.b"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="kebab-case"):
        Component(name, "a:b")


@pytest.mark.parametrize("factory", ["a.b", "", "a:b:c", "a.b.C"])
def test_a_factory_without_its_colon_is_refused(factory: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:attribute"):
        Component("cat", factory)


@pytest.mark.parametrize("options", [Melted, dict, NoOptions(), Thing])
def test_options_that_are_no_frozen_dataclass_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="frozen dataclass"):
        Component("cat", "a:b", options)


def test_a_component_is_frozen() -> None:
    component = Component("cat", "a:b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        component.name = "dog"  # type: ignore[misc]


def test_a_factory_is_imported_when_it_is_loaded() -> None:
    assert Component("cat", HERE).load() is Thing
    assert Component("cat", f"{HERE}.Nested").load() is Thing.Nested
    with pytest.raises(AttributeError):
        Component("cat", f"{HERE}.Absent").load()
    with pytest.raises(ImportError):
        Component("cat", "no_such_module_at_all:Thing").load()


def test_slots_tell_kind_number_and_whether_they_may_be_empty() -> None:
    assert slots(Outer) == {
        "loss": Slot("loss", "loss", many=False, optional=False),
        "inner": Slot("inner", "perturbation", many=False, optional=False),
        "noted": Slot("noted", "schedule", many=False, optional=False),
        "vicinity": Slot("vicinity", "vicinity", many=False, optional=True),
        "other": Slot("other", "task", many=False, optional=True),
        "many": Slot("many", "loss", many=True, optional=False),
    }
    assert not slots(NoOptions)
    assert list(slots(MethodOptions)) == ["vicinity", "perturbation", "label_map", "output_map", "loss"]


def test_a_slot_of_unknown_kind_is_an_error_that_says_how_to_mend_it() -> None:
    with pytest.raises(TypeError, match=r'Nameless\.thing: .*Annotated\[Use, "perturbation"\]'):
        slots(Nameless)


def test_use_gives_a_slot_its_default() -> None:
    assert Outer().inner == Use("pgd", {"steps": 3})
    assert Outer().loss == Use("ce", {})
    assert Outer(loss=Use("kl")).loss == Use("kl")


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry()
    known.add("loss", Component("ce", HERE), "fakes")
    known.add("perturbation", Component("pgd", HERE, Inner), "fakes")
    known.add("schedule", Component("cosine", HERE), "fakes")
    known.add("method", Component("outer", HERE, Outer), "fakes")
    monkeypatch.setattr(building, "registry", lambda: known)


@pytest.mark.usefixtures("things")
def test_build_gives_a_factory_its_options_slots_and_context() -> None:
    options = Outer(
        name="x",
        loss=Use("ce", NoOptions()),
        inner=Use("pgd", Inner(7)),
        noted=Use("cosine", NoOptions()),
        many=(Use("ce", NoOptions()), Use("ce", NoOptions())),
    )
    built = build(Use("outer", options), "method", given="context")
    assert built.options is options
    assert set(built.parts) == {"loss", "inner", "noted", "vicinity", "other", "many", "given"}
    assert built.parts["given"] == "context"
    assert built.parts["vicinity"] is None
    assert built.parts["inner"].options == Inner(7)
    assert "given" not in built.parts["inner"].parts
    assert isinstance(built.parts["many"], tuple)
    assert len(built.parts["many"]) == 2


@pytest.mark.usefixtures("things")
def test_build_refuses_a_reference_that_is_not_resolved() -> None:
    with pytest.raises(TypeError, match="perturbation pgd: resolve"):
        build(Use("pgd", {"steps": 3}), "perturbation")
