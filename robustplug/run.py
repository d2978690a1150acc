"""The Python API: train and evaluate with the same functions as the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from .core.reporting import Warns
from .exports.export import export as export
from .plugin.build import build as build_resolved
from .plugin.component import Kind, Use
from .recipe.convert import resolve
from .studies.studied import Studied as Studied
from .subjects.opening import Opening, Reference, gives_back, opens, rows_asked_for, unaffected
from .subjects.target import Model
from .subjects.wrapping import open_tested

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .core.reporting import Reporter
    from .core.types import Result
    from .evaluation.audit.audit import Audit
    from .evaluation.opened import OpenedEvaluation
    from .report.pages.computed import Reported
    from .studies.study import StudyReporter
    from .studies.tuning.kept import Trial
    from .studies.tuning.tuned import Tuned
    from .subjects.data.arrays import Bounds
    from .training.train import Trained


def train(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    data: Any = None,
    validation: Any = 0.1,
    test: Any = None,
    columns: Sequence[str] | None = None,
    bounds: Bounds | None = None,
    classes: int | None = None,
    threat: Reference | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool | str | Path = False,
    fit_batch: bool = False,
    observers: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Trained:
    """Train a model from a recipe in a run folder, then evaluate it.

    Args:
        recipe: TOML file, name of a bundled recipe, or a mapping with the same tables.
        model: an nn.Module, of which a copy is trained, or a function that makes one (with the argument
            `info`, a TaskInfo, if it has one), in the place of the recipe's model.
        data: training samples in the place of the recipe's task: a pair (inputs, labels) of arrays, a torch
            Dataset or DataLoader, a Hugging Face Dataset, an iterable of batches, or a Task. A Hugging Face
            Dataset or DatasetDict of texts is read by the recipe's task if it reads texts, or by "text".
        validation: share of `data` held out for validation, stratified by class, or a set of its own.
            Checkpoints are selected on it.
        test: the same for the final evaluation; None to evaluate on the validation samples.
        columns: names of the input and the label column of a Hugging Face Dataset.
        bounds: lowest and highest value of the inputs, numbers or one for each channel or feature; by default
            0 and 1, uint8 being divided by 255.
        classes: number of classes; by default one more than the largest label.
        threat: threat model, in the place of the recipe's vicinity of the method.
        epochs, batch_size, seed: settings of the recipe. With `resume`, the run is extended to `epochs`, even
            if it is finished: its result.json is kept as result-N-epochs.json.
        overrides: further settings of the form "key=value", as with --set.
        out: run folder; None for runs/NAME, runs/NAME-2, ….
        resume: True, or the folder of the run to resume. Give the same model and data again.
        fit_batch: take the largest batch size that fits into memory, of the recipe's times powers of two.
        observers: names of the plugins that observe the run, for example "tensorboard".
        reporter: receives progress; None for no output.

    Raises:
        RecipeError: the recipe has problems; the error lists all of them.
        RunError: the run cannot continue, an observer does not exist, or a component failed (`__cause__`).
        Interrupted: Ctrl-C or SIGTERM was received; a checkpoint was written.
    """
    from .plugin.host import check_observers, registered
    from .recipe.errors import RecipeError
    from .recipe.load import located
    from .runs.choose import begun_run, choose_run
    from .subjects.brought import Brought
    from .training.train import Training

    check_observers(observers)
    brought = Brought.of(model, data, validation, test, columns, bounds, classes)
    first, longer = (epochs, None) if resume is False else (None, epochs)
    given = {"train.epochs": first, "train.batch_size": batch_size, "seed": seed}
    overrides = [*(f"{key}={value}" for key, value in given.items() if value is not None), *overrides]
    with unaffected(), registered("task", brought.task), registered("model", brought.model):
        tables = None if recipe is None else brought.into(recipe, threat)
        begun = begun_run(tables, overrides, out) if resume is False else None
        if begun is not None and fit_batch:  # its batch size was found when it was begun
            chosen, folder = choose_run(None, resume=begun)
            resume, fit_batch = begun, False
        else:
            resume = begun or resume
            chosen, folder = choose_run(tables, overrides, out, resume, longer)
        reporter = reporter or Warns()
        for note in brought.notes:
            reporter.warn(note)
        if fit_batch:
            from .training.fit_batch import with_fitting_batch

            chosen = with_fitting_batch(chosen, reporter, resume is not False)
        try:
            return Training(chosen, folder, resume is not False, reporter, observers).run()
        except RecipeError as error:
            if tables is None:
                raise
            raise located(error, tables, overrides) from error


def build(kind: Kind, name: str, /, **options: Any) -> Any:
    """Build a component by name, with its options as in a recipe.

    For example `build("perturbation", "pgd", steps=10)`. Models, and methods with
    networks of their own, also need `info`, a TaskInfo.

    Raises:
        RecipeError: the name or an option is invalid.
    """
    info = options.pop("info", None)
    return build_resolved(resolve(Use(name, options), kind), kind, info)


@opens
@gives_back
def evaluate(
    model: Model,
    *,
    suite: str | Path | Mapping[str, Any] | None = None,
    attacks: str | Sequence[Reference] | None = None,
    measurements: Sequence[Reference] | None = None,
    sources: Sequence[str | Path] = (),
    reference: str | Path | None = None,
    keep_examples: bool = False,
    images: Literal["png"] | None = None,
    name: str = "",
    out: str | Path | None = None,
    processes: int | None = None,
    launcher: Reference | None = None,
    **opening: Unpack[Opening],
) -> Result:
    """Evaluate a run folder, a model file, a module or a function under attacks.

    Args:
        model: a run folder; a file (safetensors, TorchScript, torch.export, ONNX, LightGBM, XGBoost) or
            a name such as "torchvision:resnet50"; a module or a function from inputs to logits (N, K), or to
            class indices, integers (N,); a fitted scikit-learn classifier.
        suite: TOML file, name of a bundled suite, or a mapping with the same tables; replaces `attacks`.
        attacks: attacks in order, each run on the samples that are still classified correctly, for example
            ["fgsm", {"use": "pgd", "steps": 20}]; or the name of one attack or suite; None for the attacks of
            the run's recipe.
        measurements: what to measure of each sample after the attacks, such as a certified radius; None for
            what the run's recipe says, unless suite or attacks are given.
        sources: run folders of the surrogate models for the suite's transfer rows.
        reference: model whose errors divide the corruption errors: a run folder that was evaluated with the
            same suite, or "alexnet" for ImageNet-C.
        keep_examples: keep the adversarial examples in `result.examples`, and write them to
            examples.safetensors in `out`. Images are also checked after rounding to 8 bits.
        images: "png" to write the examples as pictures, too.
        name: name of the result; "" for that of the suite, or "evaluation". A wrapper that is not the run's
            own is added to it.
        out: folder for NAME.json and for the journal from which a killed evaluation resumes; None for
            neither.
        processes: number of processes or jobs that share the batches, with the same result; None for one.
        launcher: who carries them out: "slurm" or {"use": "slurm", "gpus": 1}; None for `local`, processes of
            this machine. Overrides "launcher.KEY=VALUE" change its options.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError: an attack, the suite, the vicinity or the task is invalid.
        RunError: the model cannot be read, or the device is not available.
    """
    from .evaluation.commands.evaluate import evaluate_model
    from .runs.result_file import result_from_json
    from .studies.sharing import share, sharing_of

    suite, attacks = rows_asked_for(suite, attacks)
    asked: dict[str, Any] = {"suite": suite, "attacks": attacks, "measurements": measurements}
    asked |= {"sources": sources, "reference": reference, "name": name}
    sharing, opening["overrides"] = sharing_of(launcher, processes, opening.get("overrides") or ())
    asked |= {"keep_examples": keep_examples or images is not None, "images": images}
    if sharing is None:
        return evaluate_model(model, opening, out, **asked)
    return result_from_json(share(sharing, "evaluate", model, opening, asked, out))


@opens
@gives_back
def attack(model: Model, x: Any, y: Any, attack: Reference, **opening: Unpack[Opening]) -> Tensor:
    """Return an adversarial example for each sample.

    Args:
        model: as for `evaluate`.
        x: inputs, as in `data`: images (N, C, H, W) or (N, H, W), tables (N, F).
        y: labels, as in `data`.
        attack: the attack, for example "pgd" or {"use": "pgd", "steps": 100}.
        opening: how the model and its data are opened; see `Opening`.

    Returns:
        Inputs of the shape of x, float32, on the device of x if it is a tensor. uint8 inputs become floats in
        [0, 1]. Where the attack returns an input outside the threat model, the clean one is returned.

    Raises:
        RecipeError: the attack or the threat model is invalid.
        RunError: the model or the data cannot be used.
        Refused: the attack cannot be run on this model, data or threat model.
    """
    from .devices.precision import fitting_threads
    from .evaluation.opened import adversarial_examples, open_attacks

    opened = open_attacks(open_tested(model, {**opening, "data": (x, y)}, [attack]), None)
    with fitting_threads(opened.typical_input):
        found = adversarial_examples(opened)
    return found.to(x.device).view(x.shape) if hasattr(x, "device") and hasattr(x, "view") else found


@opens
@gives_back
def audit(
    model: Model,
    *,
    sources: Sequence[str | Path] = (),
    out: str | Path | None = None,
    budget: float | None = None,
    processes: int | None = None,
    launcher: Reference | None = None,
    **opening: Unpack[Opening],
) -> Audit:
    """Audit a model for gradient masking: is its robustness real?

    Args:
        model: as for `evaluate`.
        sources: run folders of the surrogate models for the transfer attack, preferably plainly trained.
        out: folder for audit.json and the journal of an unfinished audit; None for neither. The audit of a
            run folder is also added to its result.json.
        budget: minutes after which no further attack goes on; checks whose attack is missing are "not run".
        processes, launcher: as for `evaluate`.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError: the vicinity or the task is invalid.
        RunError: the model cannot be read, or the device is not available.
    """
    from .evaluation.audit.audit import Audit
    from .evaluation.commands.audit import audit_model
    from .studies.sharing import share, sharing_of

    sharing, opening["overrides"] = sharing_of(launcher, processes, opening.get("overrides") or ())
    if sharing is None:
        return audit_model(model, opening, out, sources=sources, budget=budget)
    asked = {"sources": sources, "budget": budget}
    return Audit.from_json(share(sharing, "audit", model, opening, asked, out))


@opens
def open_evaluation(
    model: Model,
    *,
    suite: str | Path | Mapping[str, Any] | None = None,
    attacks: str | Sequence[Reference] | None = None,
    **opening: Unpack[Opening],
) -> OpenedEvaluation:
    """Open a model and attacks as `evaluate` does, for code that runs the attacks itself.

    Args:
        model, suite, attacks: as for `evaluate`.
        opening: how the model and its data are opened; see `Opening`.

    Raises:
        RecipeError, RunError: as for `evaluate`.
    """
    from .evaluation.opened import open_attacks

    suite, chosen = rows_asked_for(suite, attacks)
    return open_attacks(open_tested(model, opening, chosen), suite)


def study(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    processes: int | None = None,
    launcher: str | None = None,
    overrides: Sequence[str] = (),
    submit: bool = True,
    observers: Sequence[str] = (),
    reporter: StudyReporter | None = None,
) -> Studied:
    """Run all unfinished cells of a study, each in its own run folder.

    A failed run does not stop the others. The result is written to result.json in the study folder. The page
    report/index.html compares the cells.

    Args:
        source: TOML file, name of a bundled study, or a mapping with the same tables.
        out: study folder; None for studies/NAME.
        processes: number of simultaneous runs, each in its own process, with the same results as sequential
            runs; None for the number of GPUs, or 1.
        launcher: name of the launcher that carries out the runs, in the place of the study's.
        overrides: changes of the study's tables, "key=value", for example "launcher.partition=gpu".
        submit: whether to start runs, or else only to follow those that were submitted before.
        observers: names of the plugins that observe the runs, for example "tensorboard".
        reporter: receives progress; None for no output.

    Raises:
        RecipeError: the study or the recipe of a cell has problems; the error lists all of them, and no run
            was started.
        RunError: the study was started in several processes, the folder cannot be written, an observer does
            not exist, or the launcher refuses the runs.
        Interrupted: Ctrl-C or SIGTERM was received; the same call resumes the study.
    """
    from .plugin.host import check_observers
    from .recipe.study import read_study
    from .studies.studied import folder_of, study_overrides
    from .studies.study import SilentStudy, run_study
    from .studies.work import Commands

    check_observers(observers)
    known = read_study(source, study_overrides(launcher, processes, overrides))
    folder = folder_of(known, out)
    commands = Commands(train, evaluate, audit)
    result = run_study(known, folder, commands, reporter or SilentStudy(), observers, submit)
    report(folder)
    return Studied.of(folder, result)


def tune(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    done: Callable[[Trial], None] = lambda trial: None,
) -> Tuned:
    """Search a method's options for clean and robust accuracy, and write the page report/index.html.

    Args:
        source: TOML file, or a mapping with the same tables.
        out: folder of the tuning; None for tunings/NAME. The same call resumes.
        reporter: receives the progress of each trial's training; None for no output.
        done: receives each trial that ends.

    Raises:
        RecipeError: the tuning has problems; the error lists all of them, and no trial was started.
        RunError: Optuna is missing, the budget or the folder does not fit, or no trial can be trained.
        Interrupted: Ctrl-C or SIGTERM was received; the same call resumes.
    """
    from .studies.tuning.tuned import carried_out
    from .studies.work import Commands

    commands = Commands(train, evaluate, audit)
    tuned = carried_out(source, None if out is None else Path(out), commands, reporter, done)
    report(tuned.folder)
    return tuned


def report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    samples: int | None = None,
    compute: bool = True,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Reported:
    """Write a self-contained HTML page about a run, a study or a tuning, with its figures as PNG and SVG.

    Args:
        folder: folder of a run, a study or a tuning.
        out: folder for index.html and figures/; None for report/ in `folder`.
        samples: number of samples for accuracy against eps, steps and restarts, without a time limit; None
            for measurements of a few seconds.
        compute: compute what a run folder lacks; nothing is computed for the others.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: receives progress.

    Raises:
        RunError: the folder holds none of them, or the page cannot be written.
    """
    from .report.pages.computed import Commands
    from .report.pages.written import write_page

    places, commands = (Path(folder), None if out is None else Path(out)), Commands(evaluate, open_evaluation)
    return write_page(*places, commands, samples, compute, device, reporter or Warns())
