"""The types of a stored result: what is read back is parsed into them before it is used."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from ..files.seals import Strict

# Larger counts and numbers of samples are no measurements.
_MOST = 2**40

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# JSON has no NaN: such a number is null.
Known = Number | None


def _threat(table: dict[str, Any]) -> dict[str, Any]:
    if table and not isinstance(table.get("use"), str):
        raise ValueError("a threat model has a name, `use`")
    eps = table.get("eps")
    if eps is not None and (isinstance(eps, bool) or not isinstance(eps, int | float) or not eps >= 0):
        raise ValueError("eps is a number of at least 0")
    return table


Table = dict[str, JsonValue]
Threat = Annotated[Table, AfterValidator(_threat)]


class Open(Strict):
    """Be the base of the types that may have more keys than the program reads."""

    model_config = ConfigDict(extra="allow")


class StoredMeasure(Strict):
    """The mean of a number over samples."""

    mean: Known
    low: Known
    high: Known
    count: Count


class StoredCertified(Strict):
    """What a certificate says of each sample; its radii are float64 in base64, little-endian."""

    norm: str
    radii: str = ""
    confidence: Share
    about: str = ""

    def numbers(self, samples: int) -> list[float]:
        """Return the radii.

        Raises:
            ValueError: they are not base64, not those of so many samples, or no radii.
        """
        try:
            data = base64.b64decode(self.radii, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("the certified radii are not base64") from error
        if len(data) != 8 * samples:
            raise ValueError(f"there is not a certified radius for each of {samples} samples")
        found = list(struct.unpack(f"<{samples}d", data))
        if not all(each >= 0 or each == -1 for each in found):
            raise ValueError("a certified radius is neither -1 nor at least 0")
        return found


class StoredRow(Strict):
    """One row of an evaluation; results of earlier versions lack the numbers by class.

    Where the score is no accuracy, a row has its name, `score`, and the share of samples with it, `share`, in
    the place of `accuracy`; earlier versions wrote `accuracy` there, too.
    """

    name: str
    options: Table
    accuracy: Share | None
    broken: Count
    attempted: Count
    rejected: Count
    forwards: Amount
    backwards: Amount
    seconds: Amount
    threat: Threat = Field(default_factory=dict)
    shift: Table = Field(default_factory=dict)
    chain: str = ""
    skipped: str = ""
    distance: dict[str, Known] = Field(default_factory=dict)
    right: str = ""
    measures: dict[str, StoredMeasure] = Field(default_factory=dict)
    example: str = ""
    by_class: list[Count] = Field(default_factory=list)
    confusion: list[list[Count]] = Field(default_factory=list)
    prepared: Count = 0
    bound: Literal["upper", "lower", "none"] = "upper"
    certified: StoredCertified | None = None

    @model_validator(mode="before")
    @classmethod
    def scored(cls, row: Any) -> Any:
        """Read `share` as `accuracy`."""
        if not isinstance(row, Mapping) or "share" not in row or "accuracy" in row:
            return row
        if not isinstance(row.get("score"), str) or not row["score"]:
            raise ValueError("a row with a share does not say what it is the share of")
        kept = {key: value for key, value in row.items() if key not in ("score", "share")}
        return kept | {"accuracy": row["share"]}

    def bits(self, samples: int) -> bytes:
        """Return `right`, one bit for each sample.

        Raises:
            ValueError: it is not base64, or not that of so many samples.
        """
        try:
            found = base64.b64decode(self.right, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"the samples of {self.name!r} are not base64") from error
        if len(found) != (0 if self.skipped else (samples + 7) // 8):
            raise ValueError(f"the row {self.name!r} does not hold a bit for each of {samples} samples")
        return found


class StoredTraining(Open):
    """The cost of a training."""

    epochs: Count
    forwards_per_sample: Amount
    backwards_per_sample: Amount
    seconds: Amount
    selected: str | None = None


class StoredWorstCase(Open):
    """The accuracy under all attacks of a chain."""

    chain: str
    threat: Threat
    attacks: list[str]
    skipped: list[str]
    accuracy: Share


class StoredCorruptions(Open):
    """The errors under corruptions, by kind and severity."""

    errors: dict[str, dict[Annotated[str, Field(pattern=r"^\d{1,3}$")], Share]]
    mean_error: Share
    reference: str = ""
    mce: Amount | None = None
    relative_mce: Number | None = None
    note: str = ""


class StoredClasses(Open):
    """The names of the classes, and the samples of each."""

    names: list[str]
    samples: list[Count]


class StoredCalibration(Open):
    """How well the confidence is calibrated."""

    row: str
    bins: Count
    error: Share
    confidence: Share


class StoredKept(Open):
    """The number of examples that a row kept."""

    examples: Count
    in_8_bits: Count | None = Field(None, alias="8-bit")


class StoredNormalisation(Open):
    """Where inputs are normalised."""

    where: str = ""
    mean: list[Number] | None = None


class StoredLoaded(Open):
    """How a model was loaded that is no run."""

    normalisation: StoredNormalisation = StoredNormalisation()


class StoredAsked(Open):
    """Digests of what an evaluation was asked for."""

    rows: str | None = None
    evaluation: str | None = None


def _full(value: Any) -> Any:
    """Return None for an empty table."""
    return None if isinstance(value, Mapping) and not value else value


class StoredQuantity(Strict):
    """What a task says of one of its measures."""

    name: str
    better: Literal["higher", "lower", ""] = ""
    share: bool = False
    headline: bool = False


class StoredSides(Open):
    """The robust accuracy from both sides."""

    threat: Threat
    certificates: list[str]
    attacks: list[str]
    certified: Share
    robust: Share
    undecided: Share


class StoredContradiction(Open):
    """A sample about which a certificate and an attack say opposite things."""

    sample: Count
    certificate: str
    radius: Amount
    attack: str
    distance: Amount


class StoredMeta(Open):
    """What a result says about its model, data and machine."""

    task: str
    name: str | None = None
    method: str | None = None
    model: str | None = None
    recipe_hash: str = ""
    samples_digest: str | None = None
    suite: str | None = None
    score: str = "accuracy"
    seconds: Amount = 0.0
    input_range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    input_shape: list[Count] | None = None
    normalisation: StoredNormalisation = StoredNormalisation()
    environment: Table = Field(default_factory=dict)
    asked: StoredAsked = StoredAsked()
    training: Annotated[StoredTraining | None, BeforeValidator(_full)] = None
    worst_cases: list[StoredWorstCase] = Field(default_factory=list)
    corruptions: Annotated[StoredCorruptions | None, BeforeValidator(_full)] = None
    examples: dict[str, StoredKept] | None = None
    classes: StoredClasses | None = None
    calibration: StoredCalibration | None = None
    loaded: StoredLoaded | None = None
    quantities: list[StoredQuantity] = Field(default_factory=list)
    bounds: list[StoredSides] = Field(default_factory=list)
    contradictions: list[StoredContradiction] = Field(default_factory=list)
    wrapper: Table = Field(default_factory=dict)


class StoredEpoch(Open):
    """The report of an epoch, in a result and as a line of metrics.jsonl."""

    epoch: Count
    train: dict[str, Known]
    validation: dict[str, Known]
    lr: Number
    seconds: Amount = 0.0
    best: bool = False


class StoredFinding(Open):
    """One check of an audit."""

    check: str
    verdict: str
    measured: dict[str, Known]
    meaning: str
    advice: str


class StoredAudit(Open):
    """An audit."""

    grade: str
    verdict: str
    accuracy: Share
    findings: list[StoredFinding]


class StoredResult(Open):
    """A result of an evaluation, of a run or of an audit; commands of plugins add findings of their own."""

    format: Literal[2, 3]
    split: str
    samples: Annotated[int, Field(ge=1, le=_MOST)]
    threat: Annotated[Threat, Field(min_length=1)]
    attacks: list[StoredRow]
    meta: StoredMeta
    history: list[StoredEpoch] = Field(default_factory=list)
    audit: StoredAudit | None = None

    @model_validator(mode="after")
    def agrees(self) -> StoredResult:
        """Compare the numbers with one another."""
        classes = self.meta.classes.samples if self.meta.classes is not None else []
        if classes and sum(classes) != self.samples:
            raise ValueError("the samples of the classes are not all samples")
        for row in self.attacks:
            _check_row(row, self.samples, len(classes))
        return self


def _check_row(row: StoredRow, samples: int, classes: int) -> None:
    count = int.from_bytes(row.bits(samples), "big").bit_count()
    if row.skipped:
        if row.accuracy is not None or row.by_class or row.confusion:
            raise ValueError(f"the row {row.name!r} was skipped, and has numbers")
        return
    if row.accuracy is None or abs(row.accuracy - count / samples) > 1e-9:
        raise ValueError(f"{count} of {samples} are right in {row.name!r}, which is not {row.accuracy}")
    if row.certified is not None:
        row.certified.numbers(samples)
    if not (row.attempted <= samples and max(row.broken, row.rejected) <= row.attempted):
        raise ValueError(f"the counts of {row.name!r} are larger than the number of its samples")
    if row.by_class and (sum(row.by_class) != count or len(row.by_class) != classes):
        raise ValueError(f"the classes of {row.name!r} do not add up to its {count} correct samples")
    if any(len(line) != len(row.confusion) for line in row.confusion):
        raise ValueError(f"the confusion matrix of {row.name!r} is not square")
    if row.confusion and [line[at] for at, line in enumerate(row.confusion)] != row.by_class:
        raise ValueError(f"the confusion matrix of {row.name!r} does not fit its classes")
