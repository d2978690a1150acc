from __future__ import annotations

import pytest

from robustplug.plugin.component import KINDS, Component
from robustplug.plugin.registry import DuplicateComponent, Registry, UnknownComponent, did_you_mean


def of(*names: str, **broken: str) -> Registry:
    registry = Registry(broken=broken)
    for name in names:
        registry.add("method", Component(name, "a:b"), "ours")
    return registry


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trade", "trades"), ("tradse", "trades"), ("pdg", "pgd"), ("zzzz", None), ("", None)],
)
def test_did_you_mean(typed: str, meant: str | None) -> None:
    assert did_you_mean(typed, ["trades", "pgd", "backward-smoothing"]) == meant


def test_did_you_mean_takes_any_iterable_and_nothing() -> None:
    assert did_you_mean("cat", iter(["cats"])) == "cats"
    assert did_you_mean("cat", []) is None


def test_an_unknown_name_is_answered_with_the_closest_and_all() -> None:
    with pytest.raises(UnknownComponent) as caught:
        of("trades", "cat").get("method", "tradess")
    text = str(caught.value)
    assert 'no method is named "tradess"' in text
    assert 'Did you mean "trades"?' in text
    assert "Installed: cat, trades." in text
    assert "failed" not in text
    assert (caught.value.kind, caught.value.name, caught.value.suggestion) == ("method", "tradess", "trades")
    assert isinstance(caught.value, LookupError)


def test_an_unknown_name_says_which_plugins_are_broken() -> None:
    with pytest.raises(UnknownComponent, match=r"failed to load: mine: ImportError: no torch9"):
        of("cat", mine="ImportError: no torch9").get("method", "mine")


def test_a_name_of_another_kind_is_unknown() -> None:
    with pytest.raises(UnknownComponent, match=r'no loss is named "cat"\. Installed: none'):
        of("cat").get("loss", "cat")


def test_a_duplicate_is_an_error_for_its_name_only() -> None:
    registry = of("cat", "dog")
    registry.add("method", Component("cat", "c:d"), "theirs")
    with pytest.raises(DuplicateComponent, match='method "cat" is offered by ours and by theirs'):
        registry.get("method", "cat")
    assert registry.get("method", "dog").name == "dog"
    assert registry.owners["method", "cat"] == "ours"


def test_names_and_kinds_are_in_order() -> None:
    registry = of("zebra", "ant")
    assert registry.names("method") == ["ant", "zebra"]
    by_kind = registry.by_kind()
    assert tuple(by_kind) == KINDS
    assert [component.name for component in by_kind["method"]] == ["ant", "zebra"]
    assert by_kind["task"] == []
