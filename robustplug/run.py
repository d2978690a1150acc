"""The Python API: train and evaluate with the same reach as the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from .plugin.build import build as build_resolved
from .plugin.component import Kind, Use
from .recipe.convert import resolve
from .recipe.load import read_suite
from .recipe.write import use_to_mapping
from .subjects.opening import Opening, Reference, opens
from .subjects.subject import open_sources, open_subject
from .subjects.target import Model

if TYPE_CHECKING:
    from .core.reporting import Reporter
    from .core.types import Result
    from .evaluation.audit.audit import Audit
    from .evaluation.opened import OpenedEvaluation
    from .report.pages.computed import LeftOut
    from .report.tables.comparison import Comparison
    from .studies.study import StudyReporter
    from .training.train import Trained


def train(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
    observers: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Trained:
    """Train a recipe in a run folder and evaluate it.

    Args:
        recipe: TOML file, name of a bundled recipe, or the same tables as a mapping.
        overrides: "key=value" each, as with --set.
        out: run folder; None for runs/NAME, runs/NAME-2, ….
        resume: True, or the folder of the run to go on with.
        observers: plugins that are asked to observe the run, for example "tensorboard".
        reporter: hears of progress; None for silence.

    Raises:
        RecipeError: the recipe has problems; all are listed.
        RunError: the run cannot go on, or there is no such observer.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    from .plugin.host import check_observers
    from .runs.choose import choose_run
    from .training.train import Training

    check_observers(observers)
    chosen, folder = choose_run(recipe, overrides, out, resume)
    return Training(chosen, folder, resume is not False, reporter, observers).run()


def build(kind: Kind, name: str, /, **options: Any) -> Any:
    """Build a component by name, with options as a recipe would write them.

    For example `build("perturbation", "pgd", steps=10)`. Models also need `info`, a TaskInfo.

    Raises:
        RecipeError: the name or an option is wrong.
    """
    context = {"info": options.pop("info")} if kind == "model" and "info" in options else {}
    return build_resolved(resolve(Use(name, options), kind), kind, **context)


@opens
def evaluate(
    model: Model,
    *,
    suite: str | Path | Mapping[str, Any] | None = None,
    attacks: Sequence[Reference] | None = None,
    sources: Sequence[str | Path] = (),
    reference: str | Path | None = None,
    out: str | Path | None = None,
    **opening: Unpack[Opening],
) -> Result:
    """Evaluate a run folder, a model file, or any module or function, under attacks.

    Args:
        model: a run folder; a file (safetensors, TorchScript, torch.export, ONNX, LightGBM, XGBoost) or
            "torchvision:NAME"; a module or a function from inputs in [0, 1] to logits (N, K), or to class
            numbers, integers (N,); a fitted classifier of scikit-learn.
        suite: file, name of a bundled suite, or the same tables as a mapping; instead of `attacks`.
        attacks: in order, each on the samples that are still right, for example
            ["fgsm", {"use": "pgd", "steps": 20}]; None for those of the run's recipe.
        sources: run folders that the suite's transfer rows make their examples on.
        reference: what corruption errors are divided by: a run folder that was evaluated with the same
            suite, or "alexnet" for ImageNet-C.
        out: folder for NAME.json and, while it is not finished, the notes that a killed evaluation goes
            on from; None for neither.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError: an attack, the suite, the vicinity or the task is wrong.
        RunError: the model cannot be read, or the device is not there.
    """
    from .devices.precision import fitting_threads
    from .evaluation.results import Asked, evaluate_and_write
    from .evaluation.summary import read_reference

    subject = open_subject(model, opening, attacks)
    asked = Asked(
        suite=None if suite is None else read_suite(suite, use_to_mapping(subject.parts.threat)),
        sources=open_sources(sources, subject),
        reference=None if reference is None else read_reference(reference),
    )
    with fitting_threads(subject.parts.typical_input):
        return evaluate_and_write(subject, asked, None if out is None else Path(out))


@opens
def audit(
    model: Model,
    *,
    sources: Sequence[str | Path] = (),
    out: str | Path | None = None,
    **opening: Unpack[Opening],
) -> Audit:
    """Audit whether a model's robustness is real, or whether its gradients are masked.

    Args:
        model: as for `evaluate`.
        sources: run folders, best plainly trained ones, whose adversarial examples are tried on it.
        out: folder for audit.json and the notes of an unfinished audit; None for neither. The finding
            is added to result.json of a run folder, too.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError: the vicinity or the task is wrong.
        RunError: the model cannot be read, or the device is not there.
    """
    from .devices.precision import fitting_threads
    from .evaluation.audit.audit import NAME, audit_subject
    from .evaluation.results import Asked
    from .runs.folder import note_in_result

    subject = open_subject(model, opening)
    asked = Asked(sources=open_sources(sources, subject))
    with fitting_threads(subject.parts.typical_input):
        found = audit_subject(subject, asked, None if out is None else Path(out))
    if subject.folder is not None and out is not None and subject.processes.main:
        note_in_result(subject.folder, NAME, found.to_json())
    return found


@opens
def open_evaluation(
    model: Model,
    *,
    suite: str | Path | Mapping[str, Any] | None = None,
    attacks: Sequence[Reference] | None = None,
    **opening: Unpack[Opening],
) -> OpenedEvaluation:
    """Open a model and attacks as `evaluate` does, for code that runs the attacks itself.

    Args:
        model, suite, attacks: as for `evaluate`.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError, RunError: as `evaluate`.
    """
    from .evaluation.opened import open_attacks

    return open_attacks(open_subject(model, opening, attacks), suite)


@dataclass(frozen=True)
class Studied:
    """What a study leaves behind.

    Attributes:
        folder: of the study.
        result: what its result.json holds.
        failed: why runs failed, by the name of their folder.
    """

    folder: Path
    result: Mapping[str, Any]
    failed: Mapping[str, str]


def study(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    processes: int | None = None,
    observers: Sequence[str] = (),
    reporter: StudyReporter | None = None,
) -> Studied:
    """Run all cells of a study that are not finished, each in a run folder of its own.

    A run that fails does not stop the others. The result is in result.json of the study's folder,
    written after every run, and its cells are compared on the page report/index.html.

    Args:
        source: TOML file, name of a bundled study, or the same tables as a mapping.
        out: folder of the study; None for studies/NAME.
        processes: runs at a time, each in a process of its own, with the same results as one after the
            other; None for the number of GPUs, or 1.
        observers: plugins that are asked to observe its runs, for example "tensorboard".
        reporter: hears of progress; None for silence.

    Raises:
        RecipeError: the study or a cell's recipe has problems; all are listed, and nothing was run.
        RunError: there are several processes, the folder cannot be written, or there is no such observer.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from .plugin.host import check_observers
    from .recipe.study import read_study
    from .studies.study import STUDIES, SilentStudy, run_study
    from .studies.work import Commands

    check_observers(observers)
    known = read_study(source)
    folder = STUDIES / known.name if out is None else Path(out)
    commands = Commands(train, evaluate, audit)
    result = run_study(known, folder, commands, reporter or SilentStudy(), processes, observers)
    report(folder)
    runs = [run for cell in result["cells"] for run in cell["runs"]]
    failed = {Path(run["folder"]).name: run["reason"] for run in runs if run["status"] == "failed"}
    return Studied(folder, result, failed)


def compare(paths: Sequence[str | Path], suite: str = "") -> Comparison:
    """Compare run folders, the cells of study folders, and JSON files of evaluations.

    Args:
        paths: of folders and files; what cannot be read is left out, and the result says why.
        suite: compare what `evaluate` found with this suite instead of the runs' own evaluations.
    """
    from .report.tables.comparison import compare as compare_runs

    return compare_runs(paths, suite)


@dataclass(frozen=True)
class Reported:
    """What a report leaves behind.

    Attributes:
        page: the HTML file.
        left_out: what the page lacks, with the command that brings it, if there is one.
    """

    page: Path
    left_out: Sequence[LeftOut]


def report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    samples: int | None = None,
    compute: bool = True,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Reported:
    """Write one self-contained HTML page about a run or a study, and its figures as PNG and SVG.

    Args:
        folder: of the run or the study.
        out: folder of index.html and figures/; None for report/ in the folder.
        samples: to measure accuracy against eps, steps and restarts with, however long it takes; None for
            what takes seconds.
        compute: compute what a run's folder does not hold; of a study nothing is computed.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: hears of progress.

    Raises:
        RunError: the folder holds neither, or the page cannot be written.
    """
    from .core.reporting import Silent
    from .report.pages.computed import Commands
    from .report.pages.run_page import PAGE, run_report
    from .report.pages.study_page import study_report
    from .runs.folder import holds_run, write_atomic, writing

    folder = Path(folder)
    target = folder / "report" if out is None else Path(out)
    left_out: list[LeftOut] = []
    if holds_run(folder):
        commands = Commands(evaluate, open_evaluation)
        text, left_out = run_report(folder, target, commands, samples, compute, device, reporter or Silent())
    else:
        text = study_report(folder, target)
    with writing(f"the page in {target}"):
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / PAGE, text.encode())
    return Reported(target / PAGE, left_out)
