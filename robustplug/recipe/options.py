"""The typed recipe. Importing this module imports neither torch nor pydantic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, Literal

from ..plugin.component import Use, rest_name, use
from ..plugin.options import Count, Decay, Natural, Positive

SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Checked:
    """Mark an option that a function checks, and say the same in JSON Schema.

    Attributes:
        check: raises ValueError for a value that is refused.
        schema: keywords added to the option's JSON Schema.
    """

    check: Callable[[Any], None]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def validate(value: Any) -> Any:
            self.check(value)
            return value

        return core_schema.no_info_after_validator_function(validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), **self.schema}


def check_schema(value: int) -> None:
    """Refuse a recipe of another format than this version of robustplug reads."""
    if value != SCHEMA:
        raise ValueError(
            f"schema {value} is not known: this robustplug reads schema {SCHEMA}; "
            f"upgrade robustplug, or write schema = {SCHEMA} and mend what is then reported"
        )


def check_name(value: str) -> None:
    """Refuse a name that cannot be that of a run folder."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f'name "{value}" cannot be that of a folder: use letters, digits, ".", "_" and "-", '
            'and no "." or "-" in front, for example "cat-digits"'
        )


def check_validation_split(value: str) -> None:
    """Refuse to select checkpoints on anything but the validation split."""
    if value != "validation":
        raise ValueError(
            f'split "{value}" is refused: checkpoints are selected on the validation split only; '
            "the test split is for the final evaluation, see [evaluate]"
        )


@dataclass(frozen=True)
class TrainOptions:
    """Say how long and on what to train.

    Attributes:
        epochs, batch_size: batch_size counts the rows of a global batch, over all processes.
        precision: "auto" takes bfloat16 where the device is fast at it.
        channels_last: memory format of images.
        device: "auto" takes an accelerator if there is one.
        clip_grad_norm: largest norm of the gradient; None for no clipping.
        ema_decay: of the averaged weights, which are then those evaluated; None for no average.
        checkpoint_batches: also save within an epoch, every so many batches.
        only: "batchnorm" trains the weights and biases of BatchNorm layers and nothing else of the model.
        select: which epoch's weights are kept: best robust or clean validation accuracy, lowest validation
            loss (`evaluate.loss`, of clean samples), or the last.
        stop_on_collapse: stop at catastrophic overfitting.
    """

    epochs: Count = 20
    batch_size: Count = 128
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    clip_grad_norm: Positive | None = None
    ema_decay: Decay | None = None
    checkpoint_batches: Count | None = None
    only: Literal["all", "batchnorm"] = "all"
    select: Literal["robust", "clean", "loss", "last"] = "robust"
    stop_on_collapse: bool = False


@dataclass(frozen=True)
class ValidateOptions:
    """Say how checkpoints are compared during training.

    Attributes:
        split: always "validation".
        every: measure after every so many epochs.
        samples: use only the first so many; None for all.
        batch_size: rows of a batch.
        attack: what robust accuracy is measured with.

    Raises:
        ValueError: another split.
    """

    split: Annotated[str, Checked(check_validation_split, {"const": "validation"})] = "validation"
    every: Count = 1
    samples: Count | None = 1000
    batch_size: Count = 256
    attack: Annotated[Use, "perturbation"] = use("pgd", steps=10, keep="best")

    def __post_init__(self) -> None:
        check_validation_split(self.split)


@dataclass(frozen=True)
class EvaluateOptions:
    """Say how the trained model is evaluated.

    Attributes:
        split: whose samples.
        samples: use only the first so many; None for all.
        batch_size: rows of a batch.
        vicinity: the threat model; None for the method's own.
        loss: what the attacks ascend.
        attack: run in this order, each on the samples that are still right.
    """

    split: Literal["test", "validation", "train"] = "test"
    samples: Count | None = None
    batch_size: Count = 256
    vicinity: Use | None = None
    loss: Use = use("ce")
    attack: Annotated[tuple[Use, ...], "perturbation"] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold everything that defines a run.

    Attributes:
        schema: format of the recipe.
        name: of the run folder; a file's stem when the file gives none.
        seed: of everything random in the run.
        task, model, method, optimizer, schedule: references, resolved when read from a file or a
            mapping. No model stands for the task's own.
        train, validate, evaluate: plain tables.

    Raises:
        ValueError: unknown schema, or a name that cannot be a folder's.
    """

    schema: Annotated[int, Checked(check_schema, {"const": SCHEMA})] = SCHEMA
    name: Annotated[str, Checked(check_name, {"pattern": f"^{_NAME.pattern}$"})] = "unnamed"
    seed: Natural = 0
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
    """Return options, given as a mapping or as an options dataclass, as a mapping."""
    if isinstance(options, Mapping):
        return options
    table = {item.name: getattr(options, item.name) for item in fields(options) if item.init}
    rest = rest_name(type(options))
    return table if rest is None else {**table.pop(rest), **table}
