"""The typed recipe. Importing this module imports neither torch nor pydantic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, Literal

from ..plugin.component import Kind, Use, rest_name, use
from ..plugin.options import Bounds, Count, Decay, NonNegative, Positive, Seed

SCHEMA = 1
# A folder name has at most 255 bytes, and files of it get endings.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
Rows = Annotated[int, Bounds(ge=1, le=2**20)]
"""Rows of a batch, from 1 to 2²⁰."""


@dataclass(frozen=True)
class Checked:
    """Mark an option that a function checks, and state the same check in JSON Schema.

    Attributes:
        check: function that raises ValueError for a value that is refused.
        schema: keywords added to the option's JSON Schema.
    """

    check: Callable[[Any], None]
    schema: Mapping[str, Any] = field(hash=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def validate(value: Any) -> Any:
            self.check(value)
            return value

        return core_schema.no_info_after_validator_function(validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), **self.schema}


def check_schema(value: int) -> None:
    """Refuse a recipe of a format that this version of robustplug does not read."""
    if value != SCHEMA:
        raise ValueError(
            f"schema {value} is not known: this robustplug reads schema {SCHEMA}; "
            f"upgrade robustplug, or write schema = {SCHEMA} and fix the problems that are then reported"
        )


def check_name(value: str) -> None:
    """Refuse a name that cannot be the name of a run folder."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f'name "{value}" cannot be a folder name: use letters, digits, ".", "_" and "-", '
            'no "." or "-" at the start, and at most 200 in all, for example "cat-digits"'
        )


def check_validation_split(value: str) -> None:
    """Refuse to select checkpoints on any split other than the validation split."""
    if value != "validation":
        raise ValueError(
            f'split "{value}" is refused: checkpoints are selected on the validation split only; '
            "the test split is for the final evaluation, see [evaluate]"
        )


@dataclass(frozen=True)
class TrainOptions:
    """Define the length, the hardware and the checkpoints of training.

    Attributes:
        epochs, batch_size: number of epochs, and rows of a global batch over all processes.
        precision: numerical precision; "auto" chooses bfloat16 where the device is fast at it.
        channels_last: memory format of images.
        device: device to train on; "auto" chooses an accelerator if there is one.
        clip_grad_norm: largest norm of the gradient; None for no clipping.
        ema_decay: decay of an exponential average of the weights, which is then evaluated and exported, as
            with the method `ema`; None for no average.
        checkpoint_batches: number of batches after which a checkpoint is also saved within an epoch.
        only: "batchnorm" trains only the weights and biases of the model's BatchNorm layers.
        select: epoch whose weights are kept: best robust or clean validation accuracy, lowest validation
            loss (`evaluate.loss`, of clean samples), or the last.
        stop_on_collapse: whether to stop at catastrophic overfitting.
        sampling: "balanced" draws epochs in which all classes are equally frequent; None takes each sample
            once.
        class_weights: factor of the loss of each class, a number for each, or "balanced" for factors in
            inverse proportion to the classes' frequencies, 1 on average over the samples; None for none.
        augment: random changes of the training inputs, in this order, after those of the task itself.
        fast: how updates run: "capture" replays a CUDA graph of them, "compile" compiles the model,
            "off" does neither; None or "auto" captures on CUDA, and compiles there where the run is long.
        deterministic: whether the same seed gives the same bits, with algorithms that may be slower; None
            for yes.
        micro_batch: largest number of rows that a process computes at once; the gradients of all parts of a
            batch make one update. None for all rows at once.
        sync_batch_norm: whether BatchNorm takes its statistics from the rows of all processes; None for no.
        checkpoint_activations: whether the blocks of the model compute their activations again in backward
            passes instead of keeping them, which takes less memory and more time; None for no.
        attack_precision: numerical precision of the model within the attacks of training, whose steps are
            float32; None for that of the training.
        background_checkpoints: whether checkpoints are written behind the training, from copies of the
            weights; None for no.
    """

    epochs: Count = 20
    batch_size: Rows = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    clip_grad_norm: Positive | None = None
    ema_decay: Decay | None = None
    checkpoint_batches: Count | None = None
    only: Literal["all", "batchnorm"] = "all"
    select: Literal["robust", "clean", "loss", "last"] = "robust"
    stop_on_collapse: bool = False
    # None, not a value: recipes of earlier versions, which lack these keys, keep their hashes.
    sampling: Literal["balanced"] | None = None
    class_weights: Literal["balanced"] | tuple[NonNegative, ...] | None = None
    augment: Annotated[tuple[Use, ...] | None, "augmentation"] = None
    fast: Literal["auto", "off", "capture", "compile", "compile+capture"] | None = None
    deterministic: bool | None = None
    micro_batch: Rows | None = None
    sync_batch_norm: bool | None = None
    checkpoint_activations: bool | None = None
    attack_precision: Literal["float32", "bfloat16", "float16"] | None = None
    background_checkpoints: bool | None = None


@dataclass(frozen=True)
class ValidateOptions:
    """Define how checkpoints are compared during training.

    Attributes:
        split: always "validation".
        every: number of epochs between two measurements.
        samples: number of samples, taken from the start of the split; None for all.
        batch_size: rows of a batch.
        attack: attack that robust accuracy is measured with.

    Raises:
        ValueError: the split is not "validation".
    """

    split: Annotated[str, Checked(check_validation_split, {"const": "validation"})] = "validation"
    every: Count = 1
    samples: Count | None = 1000
    batch_size: Rows = 256
    attack: Annotated[Use, "perturbation"] = use("pgd", steps=10, keep="best")

    def __post_init__(self) -> None:
        check_validation_split(self.split)


@dataclass(frozen=True)
class EvaluateOptions:
    """Define how the trained model is evaluated.

    Attributes:
        split: split to evaluate on.
        samples: number of samples, taken from the start of the split; None for all.
        batch_size: rows of a batch. If it is the default, 256, a GPU takes 512 to 4096 as its memory allows.
        vicinity: the threat model; None for the method's own.
        loss: loss that the attacks ascend.
        attack: attacks, run in this order, each on the samples that are still classified correctly.
        measurement: what else to measure of each sample, such as a certified radius, after the attacks.
        wrapper: what stands around the model under test, such as a smoothing; None for the model itself.
    """

    split: Literal["test", "validation", "train"] = "test"
    samples: Count | None = None
    batch_size: Rows = 256
    vicinity: Use | None = None
    loss: Use = use("ce")
    attack: Annotated[tuple[Use, ...], "perturbation"] = ()
    # None, not (): see TrainOptions.
    measurement: Annotated[tuple[Use, ...] | None, "measurement"] = None
    wrapper: Use | None = None


def check_prefixes(value: tuple[str, ...]) -> None:
    """Refuse an empty list of names, and an empty name, which would be the whole model."""
    if not value or not all(value):
        raise ValueError('must name modules or parameters of the model, such as ["conv1", "layer1"]')


Prefixes = Annotated[tuple[str, ...], Checked(check_prefixes, {"minItems": 1})]
"""Names of modules or parameters of the model; a module stands for everything in it."""


@dataclass(frozen=True)
class ModelKeys:
    """Keys that every model has in a recipe, besides `use` and `from`.

    Attributes:
        head: "new" does not load the classifier, the last linear layer, from the initial weights: it starts
            anew, for another number of classes.
        freeze: modules or parameters that are not trained; running statistics within them stay, too.
    """

    head: Literal["new"] | None = None
    freeze: Prefixes | None = None


@dataclass(frozen=True)
class OptimizerGroup:
    """Give parts of the model a learning rate or a weight decay of their own.

    Attributes:
        params: modules or parameters; where groups overlap, the last one counts.
        lr: learning rate, which the schedule scales; None for the optimizer's.
        weight_decay: weight decay; None for the optimizer's.

    Raises:
        ValueError: neither is given.
    """

    params: Prefixes
    lr: Positive | None = None
    weight_decay: NonNegative | None = None

    def __post_init__(self) -> None:
        if self.lr is None and self.weight_decay is None:
            raise ValueError("params have neither an lr nor a weight_decay of their own: give one, or both")


@dataclass(frozen=True)
class OptimizerKeys:
    """Keys that every optimizer has in a recipe, besides `use`.

    Attributes:
        groups: parts of the model with options of their own.
    """

    groups: tuple[OptimizerGroup, ...] = ()


COMMON: Mapping[Kind, type[Any]] = {"model": ModelKeys, "optimizer": OptimizerKeys}
"""The keys that every component of a kind has; a component's own option of such a name gets it, too."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold everything that defines a run.

    Attributes:
        schema: format of the recipe.
        name: name of the run folder; by default the stem of the recipe file.
        seed: seed of all randomness in the run.
        task, model, method, optimizer, schedule: references, resolved when read from a file or a mapping.
            Without a model, the task's own model is used.
        train, validate, evaluate: plain tables.

    Raises:
        ValueError: the schema is unknown, or the name cannot be a folder name.
    """

    schema: Annotated[int, Checked(check_schema, {"const": SCHEMA})] = SCHEMA
    name: Annotated[str, Checked(check_name, {"pattern": f"^{_NAME.pattern}$"})] = "unnamed"
    seed: Seed = 0
    task: Use
    model: Use | None = None
    method: Use
    optimizer: Use = use("sgd")
    schedule: Use = use("constant")
    train: TrainOptions = field(default_factory=TrainOptions)
    validate: ValidateOptions = field(default_factory=ValidateOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)

    def __post_init__(self) -> None:
        check_schema(self.schema)
        check_name(self.name)


def default_of(item: Field[Any], missing: Any) -> Any:
    """Return the default of a dataclass field, or `missing` when it has none."""
    if item.default_factory is not MISSING:
        return item.default_factory()
    return missing if item.default is MISSING else item.default


def as_mapping(options: Any) -> Mapping[str, Any]:
    """Return options as a mapping, from a mapping or from an options dataclass."""
    if isinstance(options, Mapping):
        return options
    table = {item.name: getattr(options, item.name) for item in fields(options) if item.init}
    rest = rest_name(type(options))
    return table if rest is None else {**table.pop(rest), **table}
