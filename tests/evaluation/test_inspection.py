"""What an audit learns before its attacks: gradients, randomness, stand-ins, attack power, chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import robustplug
from robustplug.core.calling.stand_ins import Averaged, link
from robustplug.core.functional import margin
from robustplug.core.types import Batch
from robustplug.evaluation.audit.binarisation import power, readout
from robustplug.evaluation.audit.chance import interval, p_fewer, p_more
from robustplug.evaluation.audit.inspection import Inspection, input_gradient, inspect, squeezed
from robustplug.evaluation.audit.stand_ins import Borrowed, Bridge, Bridged, Rescaled, find_bridge
from robustplug.evaluation.audit.substitute import train_substitute

from .masks import MASKS, Function, digits, thermometer, trained

pytestmark = pytest.mark.table

X, Y = (part[1400:1464] for part in digits())
RADIUS = torch.full((len(X),), 0.1)
BALL = robustplug.build("vicinity", "linf", eps=0.1)


def inspected(model: nn.Module) -> Inspection:
    return inspect(model, Batch(X, Y, torch.arange(len(X))), BALL, RADIUS, 0)


def gradient_of(model: nn.Module, x: Tensor = X) -> Tensor:
    found, _ = input_gradient(model, x, lambda output: margin(output, Y[: len(x)]))
    assert found is not None
    return found


def test_an_honest_network_shows_nothing(plain_net: nn.Module) -> None:
    found = inspected(plain_net)
    assert (found.absent, found.zero, found.zero_margin, found.broken, found.wrong) == ("", 0, 0, 0, 0)
    assert not found.random
    assert not found.unsteady
    assert found.bridge is None
    assert (found.draws, found.compared) == (1, len(X))
    assert not found.squeezed
    assert found.uneven == 0


SIGNS: dict[str, Callable[[Inspection], bool]] = {
    "no gradients": lambda found: bool(found.absent) and found.parameters > 0,
    "zero gradients": lambda found: found.zero_margin == len(X),
    "saturated": lambda found: found.zero > 0.9 * len(X) and found.zero_margin == 0,
    "not finite": lambda found: found.broken == len(X),
    "wrong gradients": lambda found: found.wrong > 0.5 * len(X),
    "random": lambda found: found.random and found.draws >= 4,
    "weak attacks": lambda found: found.zero_margin == 0,
    "scaled logits": lambda found: found.squeezed and found.zero == 0,
}


class Winners(nn.Module):
    """Keep the largest tenth of the values of a layer, and set the others to 0 (Xiao et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(flat.shape[1] // 10, 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(x)


def test_jumps_are_not_explained_by_gradients() -> None:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 300), Winners(), nn.Linear(300, 300), Winners(), nn.Linear(300, 10)]
    found = inspected(nn.Sequential(*layers))
    assert found.wrong < 0.1 * len(X), "at each point the gradient is that of the model"
    assert found.uneven > 0.4 * len(X)
    smooth = [nn.SiLU() if isinstance(layer, Winners) else layer for layer in layers]
    assert inspected(nn.Sequential(*smooth)).uneven == 0


def test_outputs_are_squeezed_if_the_confidence_is_far_below_the_accuracy() -> None:
    labels = torch.arange(4)
    sure = 3.0 * torch.eye(4)  # 0.87 for the true class, the rest shared evenly: label smoothing does this
    assert not squeezed(sure, labels)
    assert not squeezed(sure / 3, labels)
    assert squeezed(sure / 50, labels)
    assert not squeezed(sure / 50, labels.roll(1)), "the model is wrong"
    half = torch.tensor([0, 1, 0, 0])  # right in 2 of 4: no more than twice a guess
    assert not squeezed(sure / 50, half)
    assert not squeezed(torch.tensor([[0.1, 0.0]]), torch.tensor([0])), (
        "of two classes a guess is right half the time"
    )


@pytest.mark.parametrize("name", MASKS)
def test_each_mask_shows_its_sign(name: str, plain_net: nn.Module) -> None:
    kind, function = MASKS[name]
    found = inspected(Function(plain_net, function))
    assert SIGNS[kind](found), found
    assert found.unsteady == (name == "random gradients")


@pytest.mark.parametrize(
    "name", ["detached", "without gradients", "by NumPy", "quantised", "staircase", "not finite"]
)
def test_a_bridge_gives_the_gradients_of_the_network(name: str, plain_net: nn.Module) -> None:
    masked = Function(plain_net, MASKS[name][1])
    bridge = find_bridge(masked, X)
    assert bridge == Bridge(entry="net.0")
    bridged = Bridged(masked, bridge)
    with torch.no_grad():
        assert torch.equal(bridged(X), masked(X))
    found, right = gradient_of(bridged).flatten(1), gradient_of(plain_net).flatten(1)
    if name in ("quantised", "staircase"):
        assert torch.cosine_similarity(found, right).mean() > 0.7
    else:
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("name", ["rounded logits", "decisions"])
def test_a_bridge_passes_by_what_follows_the_last_layer(name: str, plain_net: nn.Module) -> None:
    masked = Function(plain_net, MASKS[name][1])
    bridge = find_bridge(masked, X)
    assert bridge == Bridge(exit="net.6")
    bridged = Bridged(masked, bridge)
    with torch.no_grad():
        assert torch.equal(bridged(X), masked(X))
    assert bool((gradient_of(bridged).flatten(1).abs().amax(1) > 0).all())


def test_a_bridge_reaches_through_a_thermometer_code() -> None:
    net = trained(channels=10, before=thermometer, epochs=4)
    masked = Function(net, lambda inner, x: inner(thermometer(x)))
    bridge = find_bridge(masked, X)
    assert bridge == Bridge(entry="net.0")
    moved = (X + 0.1 * gradient_of(Bridged(masked, bridge)).sign()).clamp(0, 1)
    with torch.no_grad():
        worse = (margin(masked(moved), Y) > margin(masked(X), Y)).float().mean()
    assert worse > 0.8


def test_link_repeats_each_channel_as_often_as_the_layer_needs() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert torch.equal(link(x, torch.empty(1, 8)), x.flatten(1))  # type: ignore[arg-type]
    wide = link(x, torch.empty(1, 6, 2, 2))
    assert wide is not None
    assert torch.equal(wide[:, :3], x[:, :1].expand(1, 3, 2, 2))
    assert link(x, torch.empty(1, 5, 2, 2)) is None
    assert link(x, torch.empty(1, 2, 4, 4)) is None


def test_there_is_no_bridge_around_a_function_without_layers() -> None:
    assert find_bridge(Function(nn.Identity(), lambda _, x: x.flatten(1)[:, :10].round()), X) is None


def test_borrowed_gradients_are_those_of_the_substitute_at_the_models_outputs(plain_net: nn.Module) -> None:
    substitute = train_substitute(plain_net, X, BALL, RADIUS, 0)
    again = train_substitute(plain_net, X, BALL, RADIUS, 0)
    assert all(map(torch.equal, substitute.parameters(), again.parameters()))
    borrowed = Borrowed(plain_net, substitute)
    with torch.no_grad():
        assert torch.equal(borrowed(X), plain_net(X))
        agree = (substitute(X).argmax(1) == plain_net(X).argmax(1)).float().mean()
    assert agree > 0.95
    assert not torch.equal(gradient_of(borrowed), gradient_of(plain_net))
    assert (
        torch.cosine_similarity(gradient_of(borrowed).flatten(1), gradient_of(plain_net).flatten(1)).mean()
        > 0.2
    )


def test_rescaled_logits_decide_as_before(plain_net: nn.Module) -> None:
    shifted = Function(plain_net, lambda net, x: net(x) * 1e-3 + 100)
    with torch.no_grad():
        found = Rescaled(shifted, 1e3)(X)
        assert torch.equal(found.argmax(1), shifted(X).argmax(1))
        assert float(found.mean(1).abs().max()) < 0.05


def test_an_average_settles_a_random_model(plain_net: nn.Module) -> None:
    noisy = Function(plain_net, MASKS["noise"][1])
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        once = (noisy(X) - noisy(X)).abs().mean()
        mean = (Averaged(noisy, 16)(X) - Averaged(noisy, 16)(X)).abs().mean()
    assert mean < once / 2


@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_attacks_have_power_on_an_honest_network(eps: float, plain_net: nn.Module) -> None:
    found = power(plain_net, X[:32], BALL, torch.full((32,), eps), 0)
    assert found.tested >= 28
    assert found.found >= 0.9 * found.tested
    assert found == power(plain_net, X[:32], BALL, torch.full((32,), eps), 0)


@pytest.mark.parametrize("name", ["quantised", "wrong sign", "random gradients", "not finite", "fast sine"])
def test_attacks_have_no_power_behind_a_mask(name: str, plain_net: nn.Module) -> None:
    found = power(Function(plain_net, MASKS[name][1]), X[:24], BALL, RADIUS[:24], 0)
    assert found.tested > 8
    assert found.found <= 0.3 * found.tested


class Voting(nn.Module):
    """A mean over several rows for each sample, as a smoothing takes it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(torch.cat([x, x, x]))
        return outputs.view(3, len(x), -1).mean(0)


def test_the_power_of_attacks_on_a_model_of_many_rows_for_a_sample(plain_net: nn.Module) -> None:
    found = power(Voting(plain_net), X[:16], BALL, RADIUS[:16], 0)
    assert found.tested > 8
    assert found.found >= 0.9 * found.tested


def test_a_readout_separates_where_it_can() -> None:
    rng = torch.Generator().manual_seed(0)
    inner = torch.randn(50, 80, generator=rng)
    weights, threshold, separated = readout(inner, inner.mean(0, keepdim=True) + 1)
    assert separated
    assert bool((inner @ weights < threshold).all())
    _, _, separated = readout(inner, inner[:1])
    assert not separated


def test_p_values_are_those_of_the_binomial_distribution() -> None:
    assert math.isclose(p_more(9, 200, 0.02), stats.binomtest(9, 200, 0.02, "greater").pvalue)
    assert math.isclose(p_fewer(40, 64, 0.85), stats.binomtest(40, 64, 0.85, "less").pvalue)
    assert p_more(0, 200, 0.02) == p_more(0, 0, 0.5) == p_fewer(0, 0, 0.5) == 1
    assert interval(0, 0) == (0, 1)
    low, high = interval(5, 100)
    assert low < 0.05 < high
    assert math.isclose(stats.binom.sf(4, 100, low), 0.025, rel_tol=1e-6)
