"""One optimiser update as the slots of a method see it: their only access to the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import Refused, RunError, out_of_memory
from .calling.gradients import finite
from .calling.inputs import Shared, call, writes_into
from .calling.meter import Meter
from .calling.restored import BatchNormMode, frozen, values_kept
from .calling.stand_ins import passes
from .functional import factors, failure
from .state import MethodState
from .types import Batch, Pass, Progress, View

if TYPE_CHECKING:
    from .calling.needs import Bounded, Iterating, Slots
    from .task import Task

NO_GRADIENTS = "the model has no gradients: only black-box attacks can be run on it"


def unchanged(tensors: Sequence[Tensor]) -> None:
    """Leave tensors as they are: the means over a single process."""


@dataclass
class Step:
    """Provide the slots of a method with what they need for one update, or for one evaluation batch.

    Attributes:
        model: the plain module, as `setup` left it.
        method: the five slots in use.
        task: the task, which scores outputs.
        batch: the task's batch, before the vicinity samples from it.
        rng: this process's generator, on the batch's device, seeded for this update.
        progress: position in the training run.
        pass_: the current pass of the method.
        meter: the run's count of forwards and backwards.
        wrapped: the module that synchronises gradients between processes; None for the plain one.
        evaluating: whether an attack may stop at the first success of each sample.
        seed: seed from which, together with a sample's index, the generators of single samples are derived.
            All batches of an evaluation row share one seed; each training update has another.
        share: factor that makes the mean over processes the mean over the global batch.
        class_weights: a factor of each class's loss, (K,); None for none.
        average: replaces tensors by their means over all processes.
        iterations: what runs the iterations of an evaluation's attack; None to run them as they are written.
        first_row: place of the batch's first row among those of this process; above 0 in later micro-batches.
        attacked: returns what attacks call in the place of the model, such as it in another precision, or in
            that of its stand-in; None for the model itself.
        closes: whether the batch is the last micro-batch of its update, or the only one.
        averaged: whether `wrapped` has run, and so averages the gradients of its weights.
    """

    model: nn.Module
    method: Slots
    task: Task
    batch: Batch
    rng: torch.Generator
    progress: Progress = field(default_factory=Progress)
    pass_: Pass = field(default_factory=Pass)
    meter: Meter = field(default_factory=Meter)
    wrapped: nn.Module | None = None
    evaluating: bool = False
    seed: int = 0
    share: float = 1.0
    class_weights: Tensor | None = None
    average: Callable[[Sequence[Tensor]], None] = unchanged
    iterations: Iterating | None = None
    attacked: Callable[[nn.Module], nn.Module] | None = None
    first_row: int = 0
    closes: bool = True
    averaged: bool = False
    logged: dict[str, Tensor] = field(default_factory=dict)
    reported: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor] = field(default_factory=dict)
    _attack: str = ""
    _graph_rows: int = 0
    _other_rows: int = 0
    _cache: list[tuple[Shared, Any, int]] = field(default_factory=list)
    _twin: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Any, variant: Hashable = None, module: nn.Module | None = None) -> Any:
        """Run the model on x.

        Outside attacks, a constant input is run once: slots that request it again receive the same output,
        with its graph. An input that requires grad is never shared. A model that writes into its inputs
        receives a copy.

        Args:
            x: inputs, for images (N, C, H, W) in [0, 1].
            variant: name of the state of a switch inside the model (a mask, a set of statistics); outputs
                are shared within one variant only.
            module: another network of the method, such as a second player; None for the model.
        """
        if module is None:
            module = self.model if self._attack or self.wrapped is None else self.wrapped
        if isinstance(x, Tensor) and x.is_inference():
            x = x.clone()  # it has no version, and no graph can begin there
        sharable = isinstance(x, Tensor) and not x.requires_grad
        if sharable:
            key = Shared(x, x._version, variant, torch.is_grad_enabled(), self._attack, module)
            for known, output, written in self._cache:
                # An output that was written in place since is not shared any more.
                if known.x is x and known[1:] == key[1:] and written == writes_into(output):
                    return output
        grad = torch.is_grad_enabled()
        attacked = self.attacked if self._attack and module is self.model else None
        output = call(module if attacked is None else attacked(module), x)
        if torch.is_grad_enabled() != grad:
            torch.set_grad_enabled(grad)
        if self._twin is not None and self._twin[0] is x:
            self.offer(self._twin[1], output.detach(), variant)
        rows = len(x) * passes(module)
        self.meter.forwards += rows
        # A model that this pass does not update has no graph, so its backward costs nothing.
        graph = output.requires_grad if isinstance(output, Tensor) else torch.is_grad_enabled()
        self.averaged |= graph and module is self.wrapped
        if graph and not self._attack:
            self._graph_rows += rows
        elif graph and module is not self.model:
            self._other_rows += rows
        # Iterates of an attack are not requested again: caching them would only waste memory.
        if sharable and not self._attack:
            self._cache.append((key, output, writes_into(output)))
        return output

    def offer(self, x: Tensor, output: Any, variant: Hashable = None) -> None:
        """Provide an output that is already computed to the rest of an attack, as a constant.

        Args:
            x: constant inputs; only a call of `forward` with this very tensor receives the output.
            output: output of the model, without a graph.
            variant: as in `forward`.

        Raises:
            RuntimeError: called outside an attack.
        """
        if not self._attack:
            raise RuntimeError("step.offer was called outside an attack: call it within step.attack_mode()")
        key = Shared(x, x._version, variant, False, self._attack, self.model)
        self._cache.append((key, output, writes_into(output)))

    @contextlib.contextmanager
    def offering(self, x: Tensor, twin: Tensor) -> Iterator[None]:
        """Provide what the model returns for x, in a block of an attack, as that for an equal constant.

        What an output map makes of the outputs is not shared: the output map of another view may differ.

        Args:
            x: inputs that require grad.
            twin: constant inputs of the same values.
        """
        before, self._twin = self._twin, (x, twin)
        try:
            yield
        finally:
            self._twin = before

    def output(self, view: View) -> Any:
        """Return g∘f of a view, through the method's output map."""
        return self.method.output_map(self, view)

    def target(self, view: View) -> Any:
        """Return h of a view, through the method's label map."""
        return self.method.label_map(self, view)

    def loss(self, view: View, output: Any, target: Any) -> Tensor:
        """Return the method's loss of each sample, (N,).

        Raises:
            RunError: the loss fails on this target, for example on rows where it takes class numbers alone.
        """
        try:
            return self.method.loss(self, view, output, target)
        except (RuntimeError, IndexError, TypeError) as error:
            if out_of_memory(error):
                raise
            raise RunError(failure(self.method.loss, target, error)) from error

    def objective(self, view: View) -> Tensor:
        """Return ℓ(h, g∘f) of each sample, (N,): what training descends and an attack ascends."""
        if view.penalty is not None:
            return view.penalty(self, view)
        return self.loss(view, self.output(view), self.target(view))

    def weight(self, view: View) -> float | Tensor:
        """Return the factor of a view in the loss, class weights included: a number, or a tensor (N,)."""
        own = view.weight(self, view) if callable(view.weight) else view.weight
        return own if self.class_weights is None else own * factors(view.y, self.class_weights)

    def total(self, views: Sequence[View]) -> Tensor:
        """Return Σ_views mean(weight · ℓ), what training descends, and log nothing."""
        terms = [self.objective(view) for view in views]
        weighed = [(self.weight(view) * term).mean() for view, term in zip(views, terms, strict=True)]
        return torch.stack(weighed).sum() * self.share

    def score(self, view: View, output: Any) -> Tensor:
        """Return for each sample whether its output is correct: bool (N,)."""
        return self.task.score(view, output)

    def gradient(self, total: Tensor, x: Tensor, retain: bool = False, graph: bool = False) -> Tensor:
        """Return the gradient of a scalar with respect to x, and count it; no .grad is changed.

        A graph that goes through other networks of the method, too, counts once for each.

        Values that are no finite numbers, such as the slope of a square root at 0, are 0 in the result.

        Args:
            total: scalar.
            x: inputs that require grad.
            retain: whether to keep the graph for another gradient.
            graph: whether the gradient is part of a loss, and has a graph of its own. Then `backward` goes
                through the gradient as well as through the output, and counts both.

        Raises:
            Refused: the model has no gradients.
        """
        if not total.requires_grad:
            raise Refused(NO_GRADIENTS)
        self.meter.backwards += len(x) * passes(self.model) + self._other_rows
        self._other_rows = 0
        (result,) = torch.autograd.grad(
            total, x, retain_graph=retain or graph, create_graph=graph, allow_unused=True
        )
        if graph:
            self._graph_rows += len(x) * passes(self.model)
        if result is None:
            raise Refused(NO_GRADIENTS)
        if self.evaluating:
            self.meter.note(result)
        return finite(result)

    def backward(self, total: Tensor) -> None:
        """Accumulate the gradient of the training loss, and count it."""
        self.meter.backwards += self._graph_rows
        self._graph_rows = 0
        total.backward()  # type: ignore[no-untyped-call]

    def weight_gradients(self, total: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the gradient of a loss with respect to each parameter, and count it; no .grad is changed.

        With several processes, it is the mean over them. Use it within `rehearsal`.

        Args:
            total: scalar, from `total`.
            parameters: the parameters; one that the loss does not depend on has a gradient of 0.
        """
        self.meter.backwards += self._graph_rows
        self._graph_rows = 0
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        gradients = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, found, strict=True)
        ]
        self.average(gradients)
        return gradients

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Compute losses and their gradients in a block whose outputs are not used in the update itself.

        Afterwards, the model's buffers (running statistics) are as before, and no output is shared. With
        several processes, gradients are not averaged by themselves.
        """
        wrapped, self.wrapped = self.wrapped, None
        self.forget()
        try:
            with values_kept(self.model.buffers()):
                yield
        finally:
            self.wrapped = wrapped
            self.forget()

    @contextlib.contextmanager
    def moved(self, moves: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
        """Add to parameters for a block, and put the same bits back afterwards, even after an exception.

        Outputs of one side are never shared with the other. Gradients from inside stay.

        Args:
            moves: what to add, by parameter, of its shape.
        """
        self.forget()
        try:
            with values_kept(moves):
                with torch.no_grad():
                    for parameter, move in moves.items():
                        parameter.add_(move)
                yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Forget the outputs that could be shared; their graphs will not go backwards any more."""
        self._cache.clear()
        self._graph_rows = 0

    def iterate(self, iteration: Callable[..., Any], view: View, *state: Any) -> Any:
        """Return iteration(view, *state); on a GPU, an evaluation replays a graph of it where it can.

        It may run on a batch that is padded with further rows, whose results are dropped. So the iteration is
        a function that is written in the attack, treats each row on its own, and draws no random numbers from
        `rng`: they are drawn before. What changes from call to call is in its arguments, or a number, a
        string or a tensor that it closes over; each value of those has a graph of its own.

        Args:
            iteration: function of a view and further trees of tensors with N rows, or without dimensions,
                to a tree of tensors of the same kinds.
            view: the samples.
            state: the other arguments.
        """
        # In training mode, padding would change the statistics of the batch.
        if self.iterations is None or self._attack != "eval":
            return iteration(view, *state)
        return self.iterations.run(self, iteration, view, state)

    def log(self, name: str, values: Tensor, rows: Tensor | None = None) -> None:
        """Record the mean of a per-sample quantity (N,) for the progress bar and the epoch's report.

        Args:
            name: name of the quantity.
            values: a number for each sample.
            rows: which samples count, bool (N,); None for all.
        """
        numbers = values.detach().float()
        if rows is None:
            self.logged[name] = numbers.mean()
            return
        self.counted[name] = rows.sum()
        self.logged[name] = torch.where(rows, numbers, 0.0).sum() / self.counted[name].clamp_min(1)

    def report(self, name: str, values: Tensor) -> None:
        """Report a number of each sample from an attack, (N,), such as the queries that it took.

        An evaluation adds it to the info of the view that the task judges, and to the measures of the row; a
        name that starts with "_" is for the task alone.
        """
        self.reported[name] = values.detach()

    def radii(self, view: View, vicinity: Bounded) -> Tensor:
        """Return the radius of each sample of a view, float32 (N,): its own, or the vicinity's."""
        if view.radius is not None:
            return view.radius
        return torch.full((len(view),), float(vicinity.eps), device=view.index.device)

    @contextlib.contextmanager
    def attack_mode(self, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
        """Prepare the model for an attack and restore it afterwards, even after an exception.

        Inside, parameters are frozen, so that a backward pass computes input gradients only. Papers differ
        in the mode of the model: "eval" uses running statistics; "train" uses those of the batch, and the
        running ones are restored afterwards.
        """
        state = getattr(self.method, "state", None)
        parameters = list(self.model.parameters())
        if isinstance(state, MethodState):
            parameters += state.parameters()
        before, self._attack = self._attack, batchnorm
        try:
            own = frozen(self.model, parameters, batchnorm)
            with own, torch.inference_mode(mode=False), torch.enable_grad():
                yield
        finally:
            self._attack, self._other_rows = before, 0
            if not before:
                self._cache[:] = [entry for entry in self._cache if not entry[0].attack]
