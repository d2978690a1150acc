"""The zoo is what it says: its masks keep the decisions of the network, and its table counts correctly."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from audit_zoo import masks, nets
from audit_zoo.__main__ import stored
from audit_zoo.board import Audited, counted, markdown, row, totals
from audit_zoo.entries import KINDS, Entry, Made
from audit_zoo.masked import MLP, WRAPPED
from audit_zoo.measure import Measured, descend, gap, right
from audit_zoo.models import zoo
from audit_zoo.workshop import Workshop
from torch import nn

pytestmark = pytest.mark.table


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def entries(cache: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in zoo(cache)}


@pytest.fixture(scope="module")
def shop(cache: Path) -> Workshop:
    return Workshop(cache)


@pytest.fixture(scope="module")
def net(shop: Workshop) -> nn.Module:
    return shop.trained(MLP)


def test_the_zoo_has_enough_models_of_each_kind() -> None:
    found = zoo()
    names = [entry.name for entry in found]
    assert len(set(names)) == len(names)
    kinds = Counter(entry.kind for entry in found)
    assert kinds.pop("") >= 27
    assert kinds.total() >= 22
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("name", ["linear-svm@0.1", "saturated-mlp", "detached-mlp"])
def test_an_entry_can_be_made_again(name: str, entries: dict[str, Entry]) -> None:
    first, second = entries[name].make(), entries[name].make()
    x, y = first.data
    assert x.shape == (360, 1, 8, 8)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    if isinstance(first.module, nn.Module):
        assert torch.equal(first.module(x), second.module(x))
        assert (first.module(x).argmax(1) == y).float().mean() > 0.85


def test_trained_weights_are_stored_once(shop: Workshop, net: nn.Module, monkeypatch: Any) -> None:
    again = Workshop(shop.cache)
    monkeypatch.setattr("robustplug.train", lambda *_, **__: pytest.fail("trained again"))
    assert torch.equal(again.trained(MLP).state_dict()["1.weight"], net.state_dict()["1.weight"])
    with pytest.raises(pytest.fail.Exception):
        again.trained(replace(MLP, seed=1))


@pytest.mark.parametrize("wrapped", WRAPPED, ids=[name for name, *_ in WRAPPED])
def test_a_mask_keeps_most_decisions(wrapped: tuple[Any, ...], net: nn.Module, shop: Workshop) -> None:
    _, kind, _, changes, _ = wrapped
    x, _ = shop.samples("digits", "test")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        same = (masks.Masked(net, **changes)(x).argmax(1) == net(x).argmax(1)).float().mean()
    exact = kind in ("decisions", "wrong-gradient", "nan-gradient", "saturated")
    assert same >= (1.0 if exact else 0.75)


def test_the_code_without_a_gradient_is_near_its_smooth_stand_in() -> None:
    x = torch.rand(4, 1, 8, 8)
    hard, soft = nets.Thermometer(16)(x), nets.Thermometer(16, slope=1e4)(x)
    assert hard.shape == (4, 16, 8, 8)
    assert (hard - soft).abs().mean() < 0.01


def test_winners_keep_the_largest() -> None:
    found = nets.Winners(0.25)(torch.tensor([[3.0, 1.0, 4.0, 2.0]]))
    assert found.tolist() == [[0.0, 0.0, 4.0, 0.0]]


def test_the_attack_goes_around_a_mask(net: nn.Module, shop: Workshop) -> None:
    x, y = shop.samples("digits", "test")
    masked = masks.Masked(net, before=torch.Tensor.detach)
    what = Made(masked, (x[:60], y[:60]), {"use": "linf", "eps": 0.2}, (0.0, 1.0))
    clean = right(masked, *what.data, 1)
    after = descend(masked, net, what, clean, gap, 1, 0)
    assert float(clean.float().mean()) > 0.8
    assert float(after.float().mean()) < 0.3


def one(kind: str, grade: str, *found: str) -> Audited:
    return Audited("net", kind, 0, Measured(0.9, None, 0.1, "ce", 0.0), grade, found)


@pytest.mark.parametrize(
    ("audited", "right"),
    [
        (one("", "A"), True),
        (one("", "U"), True),
        (one("", "F", "stochastic"), False),
        (one("stochastic", "F", "stochastic"), True),
        (one("stochastic", "F", "saturated"), False),
        (one("stochastic", "U"), False),
        (one("stochastic", "A", "stochastic"), False),
        (replace(one("", "error"), error="RunError: broken"), False),
    ],
)
def test_only_the_right_flag_counts(audited: Audited, right: bool) -> None:
    assert audited.right is right
    assert ("✗" in markdown([row(audited)])) is not right


def test_totals_have_exact_intervals() -> None:
    assert counted("honest, flagged", 0, 30) == "honest, flagged: 0/30 = 0.0% (0.0% to 11.6%)"
    assert counted("masked", 0, 0) == "masked: none in this zoo"
    lines = totals([one("", "A"), one("", "F"), one("stochastic", "F", "stochastic"), one("stochastic", "U")])
    assert lines[0].startswith("masked, flagged: 1/2")
    assert lines[3].startswith("honest, flagged: 1/2")


def test_stored_audits_are_read_back(tmp_path: Path) -> None:
    path, done = tmp_path / "zoo.json", [one("", "A"), replace(one("stochastic", "F", "x"), seed=1)]
    assert stored(path) == {}
    path.write_text(json.dumps([asdict(each) | {"right": each.right} for each in done]))
    assert list(stored(path)) == [("net", 0), ("net", 1)]
    assert [row(each) for each in stored(path).values()] == [row(each) for each in done]
