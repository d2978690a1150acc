"""Components that are broken in one way each; the kit must find out which."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustplug.api import Batch, Cost, Method, ParamGroup, Rate, Step, Task, Vicinity, View, stream
from robustplug.builtin.vicinities import Linf
from robustplug.testing import OneStep, ToyTask


class Attack(OneStep):
    def __init__(self, options: object) -> None:
        self.calls = 0


class LeavesTheBall(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        x = super().__call__(step, view, vicinity).x
        return view.replace(x=(view.origin + 1.5 * (x - view.origin)).clamp(0, 1))


class LeavesTheRange(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        x = super().__call__(step, view, vicinity).x
        radius = step.radii(view, vicinity).view(-1, 1, 1, 1)
        return view.replace(x=view.origin + radius * (x - view.origin).sign())


class IgnoresRadii(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        x = super().__call__(step, view.replace(radius=None), vicinity).x
        return view.replace(x=x)


class MovesAtRadiusZero(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        x = super().__call__(step, view, vicinity).x
        return view.replace(x=torch.where(x < 0.5, x + 1e-7, x - 1e-7))


class DrawsFromTorch(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        torch.rand(1)
        return super().__call__(step, view, vicinity)


class DrawsFromNumpy(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        np.random.rand()
        return super().__call__(step, view, vicinity)


class DrawsFromPython(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        random.random()
        return super().__call__(step, view, vicinity)


_OWN = torch.Generator().manual_seed(0)


class HasItsOwnGenerator(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        share = 0.9 + 0.1 * torch.rand(1, generator=_OWN)
        x = super().__call__(step, view, vicinity).x
        return view.replace(
            x=vicinity.project(
                view.origin + share * (x - view.origin), view.origin, step.radii(view, vicinity)
            )
        )


class RemembersInAnAttribute(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        self.calls += 1
        radius = step.radii(view, vicinity)
        moved = super().__call__(
            step, view.replace(radius=radius if self.calls == 1 else radius / 2), vicinity
        )
        return view.replace(x=moved.x)


class StaysInEval(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        step.model.eval()
        return result


class CallsTrain(Attack):
    """Puts everything in training mode afterwards, as if nobody ever froze a layer."""

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        step.model.train()
        return result


class AttacksInTrainMode(Attack):
    """Updates the running statistics with attacked samples."""

    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        step.model.train()
        with torch.no_grad():
            for module in step.model.modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                    module.running_mean.mul_(0.9)
        return result


class LeavesGradients(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        for parameter in step.model.parameters():
            if parameter.grad is not None:
                parameter.grad = None
        return result


class RestoresOnlyOnSuccess(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        flags = [(module, module.training) for module in step.model.modules()]
        step.model.eval()
        result = super().__call__(step, view, vicinity)
        for module, training in flags:
            module.training = training
        return result


class SwallowsErrors(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        try:
            return super().__call__(step, view, vicinity)
        except RuntimeError:
            return view


class LiesAboutCost(Attack):
    def cost(self, target: Cost) -> Cost:
        return target + (2, 1)


class ForgetsTheTarget(Attack):
    def cost(self, target: Cost) -> Cost:
        return Cost(1, 1)


class BypassesTheStep(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        with step.attack_mode(), torch.no_grad():
            step.model(view.x)
        return super().__call__(step, view, vicinity)


class WaitsForTheDevice(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        return result if bool((result.x != view.x).any()) else view


class Descends(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        x = super().__call__(step, view, vicinity).x
        return view.replace(x=vicinity.project(2 * view.origin - x, view.origin, step.radii(view, vicinity)))


class StaysAttached(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        return result.replace(x=result.x.requires_grad_())


class Relabels(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        return super().__call__(step, view, vicinity).replace(origin=view.origin.clone() + 1e-9, role="mine")


class WorksInPlace(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        view.y.add_(0.0) if view.y.is_floating_point() else view.y.bitwise_xor_(1).clamp_(max=1)
        return result


class SqueezesRows(Attack):
    def __call__(self, step: Step, view: View, vicinity: Vicinity) -> View:
        result = super().__call__(step, view, vicinity)
        return result.replace(x=result.x.squeeze(0))


# --- methods


class DoublesExport(Method[Any]):
    def export(self, model: nn.Module) -> nn.Module:
        class Doubled(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return 2 * model(x)

        doubled = Doubled()
        doubled.add_module("network", model)
        return doubled


class ExportChangesTheModel(Method[Any]):
    def export(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        return model


class ExportsOnlyItsModel(Method[Any]):
    """Finds its model by identity and fails for a copy."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        self.first = next(model.children())
        return super().setup(model, task)

    def export(self, model: nn.Module) -> nn.Module:
        return model if next(model.children()) is self.first else nn.Sequential(model, nn.Softmax(1))


class DeclaresAnIdleGroup(Method[Any]):
    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        self.state.idle = nn.Parameter(torch.ones(2))
        return [*super().setup(model, task), ParamGroup("idle", [self.state.idle])]


class MovesUndeclaredWeights(Method[Any]):
    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        _, *others = model.parameters()
        return [ParamGroup("model", others)]

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        with torch.no_grad():
            next(step.model.parameters()).mul_(0.99)


class Remembers(Method[Any]):
    """Right: counts how often each sample was seen, on top of what was there."""

    def setup(self, model: nn.Module, task: Task) -> Sequence[ParamGroup]:
        self.seen = self.state.per_sample("seen", task.info.training_indices)
        return super().setup(model, task)

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        self.seen.write(views[0].index, self.seen.read(views[0].index) + 1)


class MovesBackwards(Remembers):
    def mechanism(self, step: Step, views: Sequence[View]) -> Mapping[str, Tensor]:
        return {"moved": -torch.ones(len(views[0]))}


class WritesByPosition(Remembers):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        rows = torch.arange(len(views[0]))
        self.seen.write(rows, self.seen.read(rows) + 1)


class ReadsByPosition(Remembers):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        self.seen.write(views[0].index, self.seen.read(torch.arange(len(views[0]))) + 1)


class RemembersOutsideTheState(Method[Any]):
    weight = 1.0

    def views(self, step: Step, point: Batch) -> Sequence[View]:
        return [view.replace(weight=self.weight) for view in super().views(step, point)]

    def after_step(self, step: Step, views: Sequence[View]) -> None:
        self.weight *= 0.9


class GrowsItsState(Method[Any]):
    def after_step(self, step: Step, views: Sequence[View]) -> None:
        if step.progress.update == 0:
            self.state.register_buffer("late", torch.ones(3))


class DeclaresTooLittle(Method[Any]):
    def cost(self) -> Cost:
        return Cost(0, 1)


class LiesAboutItsLoss(Method[Any]):
    def cost(self) -> Cost:
        return Cost(1, 1)

    def loss_cost(self) -> Cost:
        return Cost(2, 2)


class MovesDownhill(Method[Any]):
    def views(self, step: Step, point: Batch) -> Sequence[View]:
        view = View.of(point, "adv")
        x = OneStep()(step, view, self.vicinity).x
        return [
            view.replace(x=self.vicinity.project(2 * point.x - x, point.x, step.radii(view, self.vicinity)))
        ]

    def cost(self) -> Cost:
        return Cost(2, 2)


# --- vicinities, maps, losses


@dataclass(frozen=True)
class Ball:
    eps: float = 8 / 255


class ProjectsOutOfRange(Linf):
    def project(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        r = radius.view(-1, 1, 1, 1)
        return x.clamp(origin - r, origin + r)


class AcceptsNaN(Linf):
    def contains(self, x: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
        return super().contains(
            x.nan_to_num(0.5), origin.nan_to_num(0.5), radius + 1.0 * x.isnan().flatten(1).any(1)
        )


class StepsTooFar(Linf):
    def steepest(self, gradient: Tensor) -> Tensor:
        return 2 * gradient.sign()


class StepsAside(Linf):
    """Its step is legal, but another direction is better."""

    def steepest(self, gradient: Tensor) -> Tensor:
        sign = gradient.sign()
        sign[..., 0] = 0
        return 0.05 * sign


class DrawsTheSamePoint(Linf):
    def random_point(self, origin: Tensor, radius: Tensor, rng: torch.Generator) -> Tensor:
        return super().random_point(origin, radius, stream(0, "always"))


class SamplesInPlace(Linf):
    def sample(self, step: Step, batch: Batch) -> Batch:
        batch.x.mul_(0.999)
        return batch


class Slot:
    def __init__(self, options: object) -> None:
        pass


class SumsToTwo(Slot):
    def __call__(self, step: Step, view: View) -> Tensor:
        return torch.full((len(view), step.task.info.classes or 1), 2 / 3)


class CentresTheBatch(Slot):
    def __call__(self, step: Step, view: View) -> Any:
        logits = step.forward(view.x)
        return logits - logits.mean(0)


def _entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target, reduction="none")


class Reduces(Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        return _entropy(output, target).mean()


class TakesNumbersAlone(Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        return -output.log_softmax(1).gather(1, target[:, None])[:, 0]


class TakesRowsAlone(Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        return (target - output.softmax(1)).square().sum(1)


class NormalisesByTheBatch(Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        losses = _entropy(output, target)
        return losses / losses.detach().amax()


class Overflows(Slot):
    def __call__(self, step: Step, view: View, output: Tensor, target: Tensor) -> Tensor:
        return _entropy(output, target) + 1e-3 * output.exp().sum(1)


# --- tasks, models, optimizers, schedules


class Toy(ToyTask):
    def __init__(self, options: object) -> None:
        super().__init__()


class IndexIsPosition(Toy):
    def batches(self, split: Any, feed: Any) -> Any:
        for batch in super().batches(split, feed):
            yield Batch(batch.x, batch.y, torch.arange(len(batch)))


class NeverReshuffles(Toy):
    def batches(self, split: Any, feed: Any) -> Any:
        import dataclasses

        yield from super().batches(split, dataclasses.replace(feed, epoch=0))


class IgnoresSkip(Toy):
    def batches(self, split: Any, feed: Any) -> Any:
        import dataclasses

        yield from super().batches(split, dataclasses.replace(feed, skip=0))


class ScoresFloats(Toy):
    def score(self, view: View, output: Any) -> Tensor:
        return super().score(view, output).float()


def missing_data(options: object) -> ToyTask:
    raise FileNotFoundError("data/toy.bin")


class ForgetsMode(nn.Module):
    def __init__(self, options: object, *, info: Any) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    def forward(self, x: Tensor) -> Any:
        logits = self.network(x)
        return logits - logits.mean(0)


class ForgetsToRegister(nn.Module):
    def __init__(self, options: object, *, info: Any) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


def only_descends(options: object, *, params: Any, lr: float = 0.1, maximize: bool = False) -> Any:
    return torch.optim.SGD(params, lr=lr)


class Negative(Slot):
    def __call__(self, epoch: float, epochs: int) -> float:
        return 0.5 - epoch / epochs


class Counts(Slot):
    calls = 0

    def __call__(self, epoch: float, epochs: int) -> float:
        self.calls += 1
        return 1 / self.calls


class CountsUpdates:
    """Right: a schedule of updates with a momentum."""

    def __init__(self, options: object) -> None:
        pass

    def update(self, progress: Any, settings: Any) -> Rate:
        return Rate(1 - progress.update / progress.updates, 0.5)


class RemembersUpdates(CountsUpdates):
    last = 0

    def update(self, progress: Any, settings: Any) -> Rate:
        self.last, before = progress.update, self.last
        return Rate(1.0 if before <= progress.update else 0.5)


class MomentumOfOne(CountsUpdates):
    def update(self, progress: Any, settings: Any) -> Rate:
        return Rate(1.0, 1.0)


class Shifted:
    """Right: shifts each image by its seed."""

    def __init__(self, options: object, *, info: Any) -> None:
        pass

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.stack([row.roll(seed % 3, 2) for row, seed in zip(x, seeds, strict=True)])


class ChangesInPlace(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return x.copy_(super().__call__(x, seeds))


class Brightens(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return super().__call__(x, seeds) + 0.5


class Crops(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return super().__call__(x, seeds)[..., 1:]


class DoesNothing(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return x


class DrawsForTheBatch(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.stack([row.roll(place % 3, 2) for place, row in enumerate(x)])


class DrawsGlobally(Shifted):
    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        return (x + 0.1 * torch.rand(len(x), 1, 1, 1)).clamp(0, 1)
