"""The commands that benchmarks/kills.py kills, each small enough to take seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

PREPARED = "prepared"

SMALL = ("train.checkpoint_batches=2", "validate.samples=32", "evaluate.samples=48")
SIZES = ("width=4", "hidden=16")
DIGITS = ("task.validation=100", "task.test=1100", *(f"model.{size}" for size in SIZES))
ATTACKS = 'evaluate.attack=[{use="pgd", steps=5}, {use="pgd", steps=5, loss={use="margin"}}]'
BEHIND = ("train.background_checkpoints=true", "train.checkpoint_batches=1")
TALKS = (
    "task.dialogues=64",
    "task.scenarios=24",
    "task.train_scenarios=32",
    "task.unknown_below=2",
    *("model.word=12", "model.goal=6", "model.reader=16", "model.attention=10", "model.choice=12"),
)

SUITE = """schema = 1
name = "kills"

[[row]]
attack = { use = "pgd", steps = 10 }

[[row]]
chain = "worst"
attack = { use = "apgd-ce", steps = 10 }

[[row]]
chain = "worst"
attack = { use = "square", queries = 60 }

[[row]]
attack = { use = "pgd", steps = 10 }
transfer = true

[[row]]
attack = { use = "rays", queries = 60 }

[[row]]
shift = { use = "corruption" }
sweep.shift.kind = ["gaussian_noise", "fog"]
"""

STUDY = f"""schema = 1
name = "kills"
base = "erm"
seeds = [0, 1]
suite = "suite.toml"

[set]
train = {{ epochs = 2, batch_size = 128, checkpoint_batches = 2, select = "clean" }}
task = {{ use = "digits", validation = 100, test = 1100 }}
model = {{ use = "small-cnn", width = 4, hidden = 16 }}
validate.samples = 32
evaluate.samples = 48
{ATTACKS.replace("evaluate.attack=", "evaluate.attack = ")}

[[axis]]
name = "method"

[[axis.case]]
label = "erm"
set = {{ method = {{ use = "erm", vicinity = {{ use = "linf", eps = 0.1 }} }} }}

[[axis.case]]
label = "trades"
set = {{ method = {{ use = "trades", vicinity = {{ use = "linf", eps = 0.1 }} }} }}
"""

# The recipes on digits that need nothing else; a test finds those that are missing.
ON_DIGITS = (
    *("advprop", "awp", "backward-smoothing-at", "backward-smoothing", "bilateral", "cat-sprout", "cat"),
    *(
        "dkl",
        "gradalign",
        "mart",
        "fast-at",
        "fast-trades",
        "free-at",
        "gaussian",
        "iaat",
        "interpolated",
        "label-smoothing",
        "ls-ga",
    ),
    *("mixup", "n-fgsm", "pgd-at", "robmask", "sprout-official", "sprout-pgd", "sprout"),
    *("stability-product", "stability", "trades-mixup", "fat", "smooth-adv", "consistency", "macer"),
    "smooth-mix",
)


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        kind: its name.
        first: arguments of the command.
        again: arguments that continue it after a kill.
        made: what the command makes, relative to its folder; a file in it shows that the work began.
        needs: prepared folders that it reads.
        files: files that it reads, by name.
        prepares: name under which others need its outcome; "" for none.
        patient: whether its workers may outlive a kill for a moment.
    """

    kind: str
    first: Sequence[str]
    again: Sequence[str]
    made: str
    needs: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    prepares: str = ""
    patient: bool = False

    def began(self, folder: Path) -> bool:
        """Return whether the command has made something that it continues."""
        made = folder / self.made
        return made.is_file() if made.suffix else made.is_dir() and any(made.iterdir())


def training(
    recipe: str, settings: Sequence[str], needs: Sequence[str] = (), epochs: int = 8, out: str = "run"
) -> Work:
    """Train a bundled recipe with small settings."""
    # Within the only epoch of trees there are no checkpoints.
    options = [
        part for setting in (*(SMALL[1:] if epochs == 1 else SMALL), *settings) for part in ("--set", setting)
    ]
    first = ["train", "--recipe", recipe, "--epochs", str(epochs), "--out", out, "--quiet", *options]
    prepares = out if out != "run" else ""
    made = f"{out}/manifest.json"
    return Work(recipe, first, ["train", "--resume", out, "--quiet"], made, needs, prepares=prepares)


def works() -> list[Work]:
    """List every kind of work."""
    pretrained, spoken = "runs/pretrain", "runs/advagent-sv"
    listed = [training(name, (*DIGITS, ATTACKS)) for name in ON_DIGITS]
    plain, robust = "runs/erm-digits", "runs/trades-digits"
    listed += [
        training("erm", (*DIGITS, ATTACKS), out=plain),
        training("trades", (*DIGITS, ATTACKS), out=robust),
        training("hat", (*DIGITS, ATTACKS, *(f"method.helper.{size}" for size in SIZES)), [plain]),
        training("rslad", (*DIGITS, ATTACKS, *(f"method.teacher.{size}" for size in SIZES)), [robust]),
        *(training(around, (*DIGITS, ATTACKS, "method.warmup=2")) for around in ("swa", "gairat")),
        replace(
            training("erm", (*DIGITS, ATTACKS, *BEHIND)),
            kind="checkpoints behind the training",
        ),
        *(
            training(name, (*DIGITS[:2], "model.hidden=[16]", ATTACKS))
            for name in ("ibp", "crown-ibp", "sabr", "mtl-ibp")
        ),
        training("denoiser", (*DIGITS, ATTACKS, "method.width=4"), [plain]),
        training(
            "vit",
            (*DIGITS[:2], "model.dim=8", "model.depth=1", "method.perturbation.milestones=[1, 2]", ATTACKS),
        ),
        training("pretrain", (*DIGITS, ATTACKS), out=pretrained),
        training("fine-tune", (*DIGITS, ATTACKS), [pretrained]),
        training(
            "gbdt-digits",
            (
                *DIGITS[:2],
                "model.trees=10",
                "evaluate.samples=8",
                *(f"evaluate.attack.{n}.queries=200" for n in range(3)),
            ),
            epochs=1,
        ),
        training("advagent-sv", TALKS, out=spoken),
        training("advagent-rl", TALKS, [spoken], out="runs/advagent-rl"),
        training("advagent-adversary", TALKS, [spoken, "runs/advagent-rl"], epochs=3),
        training("advagent-hardened", TALKS, [spoken, "runs/advagent-rl"], epochs=3),
        training(
            "seq2seq-synthetic",
            ("task.sentences=256", "model.word=12", "model.hidden=16", "train.batch_size=32"),
        ),
    ]
    target = pretrained
    small = ["--set", "evaluate.samples=96", "--set", "evaluate.batch_size=16", "--quiet"]

    def repeated(kind: str, arguments: Sequence[str], made: str) -> Work:
        return Work(kind, arguments, arguments, made, [target], {"suite.toml": SUITE})

    study = ["study", "study.toml", "--out", "study", "--quiet"]
    files = {"suite.toml": SUITE, "study.toml": STUDY}
    return [
        *listed,
        repeated(
            "evaluate",
            ["evaluate", target, "--suite", "suite.toml", "--source", target, *small],
            f"{target}/evaluations",
        ),
        repeated("audit", ["audit", target, "--samples", "16", "--quiet"], f"{target}/evaluations"),
        repeated(
            "attack",
            ["attack", target, "--suite", "suite.toml", "--source", target, *small],
            f"{target}/examples",
        ),
        Work("study", study, study, "study", files=files),
        Work(
            "study-2",
            [*study, "--processes", "2"],
            [*study, "--processes", "2"],
            "study",
            files=files,
            patient=True,
        ),
    ]
