"""The table of the zoo, and how many models the audit flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import binomtest

from .entries import KINDS
from .measure import Measured

HEADS = ("model", "masked", "clean", "PGD", "true", "grade", "found", "audit", "s", "")


@dataclass(frozen=True)
class Audited:
    """What one audit said about one model.

    Attributes:
        name, kind: those of the entry.
        seed: seed of the audit.
        measured: accuracies that were measured without the audit.
        grade: the grade; "error" if the audit ended with an error.
        found: words for what failed: the kinds of the findings, or else the names of their checks.
        numbers: of each check that did not pass, what it measured.
        accuracy: accuracy under the attacks of the audit.
        seconds: its time.
        error: the message of the error; "" for none.
    """

    name: str
    kind: str
    seed: int
    measured: Measured
    grade: str
    found: Sequence[str] = ()
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accuracy: float | None = None
    seconds: float = 0.0
    error: str = ""

    @property
    def flagged(self) -> bool:
        """Return whether the audit calls the model masked."""
        return self.grade in ("D", "F")

    @property
    def right(self) -> bool:
        """Return whether an honest model is not flagged, or a masked one is, for the right reason."""
        if not self.kind:
            return not self.flagged and not self.error
        return self.flagged and bool({self.kind, *KINDS[self.kind]} & set(self.found))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def row(one: Audited) -> list[str]:
    """Return the cells of a model."""
    found = ", ".join(one.found) or one.error.partition("\n")[0][:60]
    measured = [_percent(each) for each in (one.measured.clean, one.measured.naive, one.measured.true)]
    right = "" if one.right else "✗"
    return [
        one.name,
        one.kind or "honest",
        *measured,
        one.grade,
        found,
        _percent(one.accuracy),
        f"{one.seconds:.0f}",
        right,
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table with the heads of the zoo."""
    lines = [HEADS, ["---"] * len(HEADS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def counted(what: str, count: int, total: int) -> str:
    """Return a share with its exact (Clopper-Pearson) 95 % interval, as a sentence."""
    if not total:
        return f"{what}: none in this zoo"
    low, high = binomtest(count, total).proportion_ci(0.95, "exact")
    return f"{what}: {count}/{total} = {count / total:.1%} ({low:.1%} to {high:.1%})"


def totals(audited: Sequence[Audited]) -> list[str]:
    """Return the sentences below the table."""
    masked, honest = [one for one in audited if one.kind], [one for one in audited if not one.kind]
    return [
        counted("masked, flagged", sum(one.flagged for one in masked), len(masked)),
        counted("masked, flagged with the right kind", sum(one.right for one in masked), len(masked)),
        counted("masked, undecided (U)", sum(one.grade == "U" for one in masked), len(masked)),
        counted("honest, flagged", sum(one.flagged for one in honest), len(honest)),
        counted("honest, undecided (U)", sum(one.grade == "U" for one in honest), len(honest)),
        counted("audits that ended with an error", sum(bool(one.error) for one in audited), len(audited)),
    ]
