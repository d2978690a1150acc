"""Checks of the five slots, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..core.functional import failure
from ..core.method import Objective
from ..core.random import stream
from ..core.step import Step
from ..core.types import Batch, Cost, Feed, View
from ..plugin.build import build
from ..plugin.component import Use, slots
from ..plugin.host import registry
from ..recipe.clashes import threat_in, traits_of
from ..recipe.convert import resolve
from .bench import Bench, Subject, differing, require, skip_unless
from .toys import ToyTask, toy_linear, toy_plain

TOLERANCE = 1e-6


def _radii(size: int, eps: float) -> Tensor:
    """Return radii from 0 to eps, different for each sample."""
    return eps * torch.linspace(0, 1, size)


def _bench_and_step(subject: Subject) -> tuple[Bench, Step]:
    bench = Bench(subject, toy_plain)
    return bench, bench.step(bench.batch())


def _views(bench: Bench, step: Step) -> Iterator[View]:
    """Yield views with class labels and with label rows, in the usual roles, each with radii."""
    batch, classes = step.batch, bench.task.info.classes or 1
    radius = _radii(len(batch), float(bench.method.vicinity.eps))
    rows = torch.nn.functional.one_hot(batch.y, classes).float() * 0.8 + 0.2 / classes
    for role in ("clean", "adv"):
        for y in (batch.y, rows):
            yield View.of(batch, role, radius=radius).replace(y=y)


# --- vicinities


def samples_are_a_batch(subject: Subject) -> None:
    """Sample finite inputs with the same indices, deterministically, and leave the batch unchanged."""
    bench = Bench(subject, toy_plain)
    batch = bench.batch()
    before = {"x": batch.x.clone(), "y": batch.y.clone(), "index": batch.index.clone()}
    first, second = (bench.method.vicinity.sample(bench.step(batch), batch) for _ in range(2))
    changed = differing(before, {"x": batch.x, "y": batch.y, "index": batch.index})
    require(not changed, f"sample changes batch.{', batch.'.join(changed)} in place")
    require(torch.equal(first.index, batch.index), "sample changes the indices")
    require(
        first.x.shape == batch.x.shape and bool(first.x.isfinite().all()),
        "sample returns inputs of another shape or infinite ones",
    )
    same = torch.equal(first.x, second.x) and torch.equal(first.y, second.y)
    require(same, "two calls of sample with the same generator differ")


def _set_of(subject: Subject) -> frozenset[str]:
    """Return the traits of what is legal in a vicinity."""
    threat = threat_in(resolve(Use(subject.name, dict(subject.table)), "vicinity"), registry())
    return traits_of("vicinity", threat, registry()).gives


def project_gives_legal_points(subject: Subject) -> None:
    """Project to legal points, and leave projected and other legal points unchanged."""
    vicinity, origin = subject.build(), _origin()
    far = origin + torch.empty_like(origin).normal_(0, 1, generator=stream(0, "far"))
    discrete = "discrete" in _set_of(subject)
    for eps in (float(vicinity.eps), 0.5, 3.0):
        radius = _radii(len(origin), eps)
        once = vicinity.project(far, origin, radius)
        require(
            vicinity.contains(once, origin, radius).all(),
            f"project returns points outside the vicinity of radius {eps:g}",
        )
        drift = float((vicinity.project(once, origin, radius) - once).abs().max())
        require(drift <= TOLERANCE, f"projecting twice moves points by {drift:.2g}")
        if discrete:
            continue
        inside = origin + 0.5 * (once - origin)
        drift = float((vicinity.project(inside, origin, radius) - inside).abs().max())
        require(drift <= TOLERANCE, f"project moves legal points by {drift:.2g}")
    require(torch.equal(vicinity.project(origin, origin, radius), origin), "project moves the origin")
    still = vicinity.project(far, origin, torch.zeros(len(origin)))
    require(torch.equal(still, origin), "projecting with radius 0 does not return exactly the origin")


def contains_refuses_illegal_points(subject: Subject) -> None:
    """Reject points beyond the radius, inputs out of range, and NaN; accept the origin."""
    vicinity, origin = subject.build(), _origin()
    radius = torch.full((len(origin),), 0.1)
    beyond = origin + 0.15 * vicinity.steepest(_gradient(origin))
    if "discrete" in _set_of(subject):
        beyond = 1 - origin
    for name, x, expected in (
        ("the origin", origin, True),
        ("a point of 1.5 radii", beyond, False),
        ("an input above 1", torch.full_like(origin, 1.01), False),
        ("NaN", torch.full_like(origin, torch.nan), False),
    ):
        answer = vicinity.contains(x, origin, torch.full_like(radius, 9.0) if "above" in name else radius)
        shape = answer.dtype == torch.bool and answer.shape == radius.shape
        require(shape, f"contains must return bool (N,), not {answer.dtype} {tuple(answer.shape)}")
        require(bool((answer == expected).all()), f"contains returns {not expected} for {name}")


def steepest_is_the_best_direction(subject: Subject) -> None:
    """Ascend a linear function at least as fast as any legal direction, with a step of unit size."""
    vicinity, origin = subject.build(), _origin()
    gradient, radius = _gradient(origin), torch.full((len(origin),), 0.1)
    zero = vicinity.steepest(torch.zeros_like(origin))
    require(bool(zero.isfinite().all()), "steepest of a zero gradient is not finite")
    skip_unless("discrete" not in _set_of(subject), "its legal points have no directions of unit size")
    direction = vicinity.steepest(gradient)
    require(vicinity.contains(origin + 0.1 * direction, origin, radius).all(), "steepest exceeds unit size")
    best = (gradient * direction).flatten(1).sum(1)
    require(bool((best > 0).all()), "steepest does not ascend")
    for number in range(8):
        point = vicinity.random_point(origin, radius, stream(number, "point"))
        rise = (gradient * (point - origin)).flatten(1).sum(1) / 0.1
        require(bool((rise <= best * 1.0001).all()), "a random direction ascends faster than steepest")


def random_points_are_legal(subject: Subject) -> None:
    """Draw legal points only from the given generator, the same for the same seed."""
    vicinity, x = subject.build(), Bench(subject, toy_plain).batch().x
    for eps in (float(vicinity.eps), *(() if "discrete" in _set_of(subject) else (0.5, 3.0))):
        radius = _radii(len(x), eps)
        first, second, other = (vicinity.random_point(x, radius, stream(seed, "draw")) for seed in (0, 0, 1))
        require(
            vicinity.contains(first, x, radius).all(),
            f"a random point is outside the vicinity of radius {eps:g}",
        )
        require(torch.equal(first, second), "two calls of random_point with the same generator differ")
        require(not torch.equal(first, other), "random_point does not draw from its generator")
        require(torch.equal(first[radius == 0], x[radius == 0]), "random_point moves samples of radius 0")


def _origin() -> Tensor:
    """Return inputs (8, 2, 6, 6) well inside [0, 1]."""
    return torch.empty(8, 2, 6, 6).uniform_(0.4, 0.6, generator=stream(0, "origin"))


def _gradient(origin: Tensor) -> Tensor:
    return torch.empty_like(origin).normal_(0, 1, generator=stream(0, "gradient"))


def says_whether_it_draws_or_restricts(subject: Subject) -> None:
    """Keep what is legal in the vicinity inside it if it draws around it; allow less if it restricts it."""
    inside = [slot for slot in slots(subject.component.options).values() if slot.kind == "vicinity"]
    skip_unless(len(inside) == 1 and not inside[0].many, "it is not around another vicinity")
    use = resolve(Use(subject.name, dict(subject.table)), "vicinity")
    gives = traits_of("vicinity", use, registry()).gives
    said = gives & {"draws-around", "restricts"}
    require(len(said) == 1, 'its traits must give either "draws-around" or "restricts": see TRAITS')
    outer, inner = subject.build(), build(getattr(use.options, inside[0].name), "vicinity")
    origin = _origin()
    radius = torch.full((len(origin),), max(float(outer.eps), 0.05))
    points = [inner.random_point(origin, size * radius, stream(n, "in")) for n in range(4) for size in (1, 3)]
    points += [outer.random_point(origin, radius, stream(n, "out")) for n in range(4)]
    allowed = torch.stack([outer.contains(x, origin, radius) for x in points])
    before = torch.stack([inner.contains(x, origin, radius) for x in points])
    if said == {"draws-around"}:
        require(torch.equal(allowed, before), "it draws around a vicinity, and changes what is legal there")
        return
    require(not bool((allowed & ~before).any()), "it allows what the vicinity that it restricts does not")
    require(bool((before & ~allowed).any()), "it restricts a vicinity, and allows all that is legal there")


def a_norm_ball_is_whole(subject: Subject) -> None:
    """Allow every input within the norm that it states; a set that does not has the norm None."""
    vicinity, origin = subject.build(), _origin()
    whole = "norm-ball" in _set_of(subject)
    require(vicinity.norm is not None or not whole, 'it gives the trait "norm-ball", and its norm is None')
    skip_unless(vicinity.norm is not None, "it is no norm ball")
    radius = torch.full((len(origin),), 0.1)
    for number in range(4):
        away = torch.empty_like(origin).normal_(0, 1, generator=stream(number, "whole"))
        away *= torch.rand(origin.shape, generator=stream(number, "some")) < 0.2
        size = torch.linalg.vector_norm(away.flatten(1), ord=vicinity.norm, dim=1).clamp_min(1e-6)
        x = origin + 0.099 * away / size.view(-1, 1, 1, 1)
        message = f"norm = {vicinity.norm:g}, and a point within the radius is not legal: state norm = None"
        require(bool(vicinity.contains(x, origin, radius).all()), message)


VICINITY_CHECKS = (
    samples_are_a_batch,
    project_gives_legal_points,
    contains_refuses_illegal_points,
    steepest_is_the_best_direction,
    random_points_are_legal,
    says_whether_it_draws_or_restricts,
    a_norm_ball_is_whole,
)


# --- perturbations


def returns_the_view_with_a_new_x(subject: Subject) -> None:
    """Return a detached x of the same shape, and the rest of the view unchanged."""
    bench, step = _bench_and_step(subject)
    view = next(_views(bench, step))
    names = ("x", "y", "origin", "index", "radius")
    before = {name: getattr(view, name).clone() for name in names}
    for evaluating in (False, True):
        step.evaluating = evaluating
        result = bench.method.perturbation(step, view, bench.method.vicinity)
        require(not result.x.requires_grad, "the new x is not detached")
        require(
            result.x.shape == view.x.shape and result.x.dtype == view.x.dtype,
            "the new x has another shape or type",
        )
        changed = differing(before, {name: getattr(view, name) for name in names})
        require(not changed, f"the view's {', '.join(changed)} is changed in place")
        kept = {name: getattr(result, name) for name in names[1:]}
        changed = differing(kept, {name: before[name] for name in kept})
        require(
            not changed and result.role == view.role,
            f"the returned view has another {', '.join(changed) or 'role'}",
        )


def evaluated_views_are_legal(subject: Subject) -> None:
    """Return legal results during evaluation too, where samples leave at their first success."""
    bench = Bench(subject)
    for step in bench.steps(1):
        step.evaluating = True
        plain = bench.method
        step.method = Objective(lambda _, view: view.y, plain.output_map, plain.loss)
        radius = _radii(len(step.batch), float(plain.vicinity.eps))
        view = plain.perturbation(step, View.of(step.batch, "adv", radius=radius), plain.vicinity)
        legal = plain.vicinity.contains(view.x, step.batch.x, radius)
        require(legal.all(), f"{int((~legal).sum())} of {len(legal)} results are outside the vicinity")


class _CostlyLabels:
    """A label map that costs one forward."""

    def __call__(self, step: Step, view: View) -> Tensor:
        logits: Tensor = step.output(view.at_origin())
        return logits.softmax(1)


def cost_counts_the_target(subject: Subject) -> None:
    """Declare the real cost, also if computing the target costs a forward."""
    bench = Bench(subject)
    bench.method.label_map = _CostlyLabels()
    step = bench.step(bench.batch())
    declared = bench.method.perturbation.cost(Cost(1, 0))
    skip_unless(declared.known, "the cost depends on the data")
    bench.views(step)
    real = Cost(step.meter.forwards / len(step.batch), step.meter.backwards / len(step.batch))
    require(
        real == declared,
        f"a call costs {tuple(real)} with a target of cost (1, 0), but cost() returns {tuple(declared)}",
    )


def ascends_a_linear_model(subject: Subject) -> None:
    """Fool a linear model or nearly reach the closed-form optimum, if it uses gradients; never descend."""
    task = ToyTask(classes=2, sizes={"train": 64, "validation": 2, "test": 2})
    bench = Bench(subject, toy_linear, task=task)
    (whole,) = task.batches("train", Feed(batch_size=64))
    x = 0.4 + 0.2 * whole.x
    batch = Batch(x, whole.y, whole.index)
    step, vicinity = bench.step(batch), bench.method.vicinity
    radius = torch.full((len(batch),), 0.05)
    view = View.of(batch, "adv", radius=radius)
    attacked = bench.method.perturbation(step, view, vicinity)
    follows_gradients = step.meter.backwards > 0
    with step.attack_mode():
        origin = x.clone().requires_grad_()
        clean = step.objective(view.replace(x=origin))
        gradient = step.gradient(clean.sum(), origin)
        # The margin of two linear logits is linear, so one step of full size along its gradient is best.
        best = step.objective(view.replace(x=x + 0.05 * vicinity.steepest(gradient)))
        got = step.objective(view.replace(x=attacked.x))
        # Attacks that search for the nearest adversarial example stop there.
        fooled = ~step.score(view, step.output(view.replace(x=attacked.x)))
        got = torch.where(fooled, got.maximum(best), got)
    share = float(((got - clean).mean() / (best - clean).mean()).detach())
    least = 0.75 if follows_gradients else -0.1
    require(share >= least, f"the attack reaches {share:.0%} of the largest loss increase on a linear model")


PERTURBATION_CHECKS = (
    returns_the_view_with_a_new_x,
    evaluated_views_are_legal,
    cost_counts_the_target,
    ascends_a_linear_model,
)


# --- label maps, output maps, losses


def targets_are_distributions(subject: Subject) -> None:
    """Return rows (N, K) of at least 0 that sum to 1, or classes int64 (N,)."""
    bench, step = _bench_and_step(subject)
    classes = bench.task.info.classes or 1
    for view in _views(bench, step):
        target = bench.method.label_map(step, view)
        if target.dtype == torch.int64:
            fine = target.shape == (len(view),) and int(target.min()) >= 0 and int(target.max()) < classes
            require(fine, f"targets are not classes 0 to {classes - 1}, (N,)")
            continue
        require(target.shape == (len(view), classes), f"targets have shape {tuple(target.shape)}, not (N, K)")
        sums = target.sum(1)
        fine = bool((target >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
        require(
            fine,
            f"target rows must be at least 0 and sum to 1; the sums are {sums.min():g} to {sums.max():g}",
        )


def outputs_are_per_sample(subject: Subject) -> None:
    """Return finite logits (N, K); in eval mode those of a sample do not depend on its batch."""
    bench, step = _bench_and_step(subject)
    bench.model.eval()
    for view in _views(bench, step):
        outputs = bench.method.output_map(step, view)
        require(
            outputs.shape == (len(view), bench.task.info.classes),
            f"outputs have shape {tuple(outputs.shape)}",
        )
        require(bool(outputs.isfinite().all()), "outputs are not finite")
        one = bench.method.output_map(step, view.rows(torch.tensor([3])))
        require(torch.allclose(one, outputs[3:4], atol=1e-5), "the output of a sample depends on its batch")


def _logits(size: int, classes: int, scale: float) -> Tensor:
    return scale * torch.empty(size, classes).normal_(0, 1, generator=stream(0, "logits"))


def _loss_cases(subject: Subject) -> Iterator[tuple[Bench, View, Any]]:
    bench, step = _bench_and_step(subject)
    takes = subject.component.takes if subject.kind == "loss" else "both"
    for view in _views(bench, step):
        if takes in ("both", "numbers" if view.y.dim() == 1 else "rows"):
            yield bench, view, view.y


def _loss_of(bench: Bench) -> Callable[[Step, View, Tensor, Any], Tensor]:
    """Return the loss, which fails the check with a clear message where it raises an error."""

    def loss(step: Step, view: View, logits: Tensor, target: Any) -> Tensor:
        try:
            return bench.method.loss(step, view, logits, target)
        except (RuntimeError, IndexError, TypeError) as error:
            raise AssertionError(failure(bench.method.loss, target, error)) from error

    return loss


def loss_is_per_sample(subject: Subject) -> None:
    """Return the loss of each sample, (N,), independent of the other rows of the batch."""
    for bench, view, target in _loss_cases(subject):
        step, loss = bench.step(bench.batch()), _loss_of(bench)
        logits = _logits(len(view), bench.task.info.classes or 1, 1.0)
        before = logits.clone()
        losses = loss(step, view, logits, target)
        require(
            losses.shape == (len(view),),
            f"the loss has shape {tuple(losses.shape)}, not (N,): never reduce it",
        )
        require(torch.equal(logits, before), "the loss changes the outputs in place")
        back = torch.arange(len(view)).flip(0)
        turned = loss(step, view.rows(back), logits[back], target[back])
        require(
            torch.allclose(turned, losses[back], atol=1e-5), "another order of the rows changes the losses"
        )
        one = torch.tensor([2])
        alone = loss(step, view.rows(one), logits[one], target[one])
        require(torch.allclose(alone, losses[one], atol=1e-5), "the loss of a sample depends on its batch")


def loss_is_finite(subject: Subject) -> None:
    """Return finite losses and gradients, also for logits of ±10,000."""
    for bench, view, target in _loss_cases(subject):
        for scale in (0.0, 1.0, 1e4):
            logits = _logits(len(view), bench.task.info.classes or 1, scale).requires_grad_()
            losses = _loss_of(bench)(bench.step(bench.batch()), view, logits, target)
            (gradient,) = torch.autograd.grad(losses.sum(), logits)
            fine = bool(losses.isfinite().all() and gradient.isfinite().all())
            require(fine, f"the loss or its gradient is not finite for logits of size {scale:g}")


LABEL_MAP_CHECKS = (targets_are_distributions,)
OUTPUT_MAP_CHECKS = (outputs_are_per_sample,)
LOSS_CHECKS = (loss_is_per_sample, loss_is_finite)
