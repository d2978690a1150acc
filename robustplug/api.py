"""Everything that a plugin may import. Importing this module does not import torch.

Declarations (Component, options, hookimpl) are imported at once. Everything that computes is imported at
first use. So a plugin's `__init__` stays light, and its other modules can import everything from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import BrokenData, DataMissing, Refused, RunError
from .files.bounds import check_size, check_zip
from .files.folders import check_model_folder
from .files.reading import Unreadable, is_file, is_folder, open_file, read_bytes, read_json
from .files.tables import has_names, is_number, table_lines
from .plugin.build import build
from .plugin.component import Component, MethodOptions, NoOptions, Use, WrapperOptions, use
from .plugin.foreign import Library, LibraryAttack, LibraryOptions, classes_in
from .plugin.hookspecs import hookimpl
from .plugin.host import register
from .plugin.observers import observer_on_request
from .plugin.options import (
    Bounds,
    Count,
    Decay,
    Finite,
    FractionText,
    Natural,
    NonNegative,
    Positive,
    Real,
    Rest,
    RunFolder,
    Seed,
    Size,
    UnitInterval,
    parse_fraction,
)
from .plugin.registry import did_you_mean
from .plugin.traits import Traits, self_trained
from .recipe.errors import RecipeError

if TYPE_CHECKING:
    from .cli.echo import echo
    from .cli.evaluation.options import evaluate_and_show, model_options, result_folder, sharing_options
    from .core.batches import endless_order, epoch_batches, index_batches, raw_task, to_device
    from .core.calling.gradients import finite, to_unit
    from .core.calling.meter import Meter
    from .core.calling.stand_ins import Averaged, Passed
    from .core.ensemble import Ensemble
    from .core.functional import as_rows, cross_entropy, dlr, kl_divergence, margin
    from .core.guards.libraries import attack_by_radius, guarded
    from .core.measures import Measure, Quantity, bootstrap_interval, wilson_interval
    from .core.method import Averaging, Method, Objective, Wrapper, prepare
    from .core.modules import Normalized, Weights, evaluating, mlp, normalized
    from .core.opened_run import OpenedRun
    from .core.protocols import (
        CERTIFIED_RADIUS,
        AimingPerturbation,
        Augmentation,
        BoundedVicinity,
        Certificate,
        DoubtingMeasurement,
        LabelMap,
        LearnedSlot,
        Loss,
        Measurement,
        OutputMap,
        Perturbation,
        PortionedMeasurement,
        ProportionalVicinity,
        Rate,
        Schedule,
        SelfTrained,
        SparseVicinity,
        UpdateSchedule,
        Vicinity,
        rate_at,
    )
    from .core.random import beta, derive, dirichlet, gamma, isolated, normal_like, stream, uniform_like
    from .core.reporting import result_numbers
    from .core.state import MethodState, PerSample
    from .core.step import Step
    from .core.task import DescribedMeasures, LabelledTask, MeasuringTask, PoolingTask, RawTask, Task
    from .core.types import (
        AttackResult,
        Batch,
        Cost,
        EpochReport,
        Feed,
        ParamGroup,
        Pass,
        Progress,
        Result,
        RunInfo,
        Split,
        TaskInfo,
        View,
        take,
    )
    from .evaluation.opened import OpenedEvaluation
    from .evaluation.opened_run import open_run
    from .files.seals import Strict, opened, parsed, sealed
    from .plugin.signatures import scaled_step
    from .report.figures.batchnorm import batchnorm_figure
    from .report.figures.certified import certified_figure
    from .report.figures.charts import (
        Line,
        Panel,
        bar_figure,
        histogram_figure,
        image_figure,
        line_figure,
        matrix_figure,
    )
    from .run import open_evaluation
    from .runs.folder import json_text
    from .runs.result_file import note_in_result, write_result
    from .studies.launchers.jobs import job_ended
    from .studies.launchers.process import WorkerProcess
    from .studies.launchers.protocol import JobState, Launcher
    from .subjects.data.brought import find_column
    from .subjects.data.hub import load_data_set
    from .subjects.data.memory import InMemory
    from .subjects.data.pictures import check_picture, picture_tensor, read_picture
    from .subjects.data.spool import memory_limit
    from .subjects.data.statistics import (
        channel_statistics,
        classification_score,
        stratified_split,
        unit_floats,
    )
    from .subjects.data.task import ArrayTask
    from .subjects.formats.published import published_state
    from .subjects.formats.weights import weights_digest
    from .subjects.trained import open_model
    from .subjects.tuning import new_head
    from .text.changes import align_words, mark_changes, replace_words, word_spans, words_changed
    from .text.embeddings import WordEmbeddings, word_embeddings
    from .text.records import TextRecord
    from .training.loop import training_loss

_LAZY = {
    "cli.echo": "echo",
    "cli.evaluation.options": "evaluate_and_show model_options result_folder sharing_options",
    "core.batches": "endless_order epoch_batches index_batches raw_task to_device",
    "core.calling.gradients": "finite to_unit",
    "core.calling.meter": "Meter",
    "core.calling.stand_ins": "Averaged Passed",
    "core.ensemble": "Ensemble",
    "core.functional": "as_rows cross_entropy dlr kl_divergence margin",
    "core.guards.libraries": "attack_by_radius guarded",
    "core.measures": "Measure Quantity bootstrap_interval wilson_interval",
    "core.method": "Averaging Method Objective Wrapper prepare",
    "core.modules": "Normalized Weights evaluating mlp normalized",
    "core.opened_run": "OpenedRun",
    "core.protocols": (
        "CERTIFIED_RADIUS AimingPerturbation Augmentation BoundedVicinity Certificate "
        "DoubtingMeasurement LabelMap LearnedSlot Loss Measurement OutputMap Perturbation "
        "PortionedMeasurement ProportionalVicinity Rate Schedule SelfTrained SparseVicinity "
        "UpdateSchedule Vicinity rate_at"
    ),
    "core.random": "beta derive dirichlet gamma isolated normal_like stream uniform_like",
    "core.reporting": "result_numbers",
    "core.state": "MethodState PerSample",
    "core.step": "Step",
    "core.task": "DescribedMeasures LabelledTask MeasuringTask PoolingTask RawTask Task",
    "core.types": (
        "AttackResult Batch Cost EpochReport Feed ParamGroup Pass Progress Result RunInfo Split TaskInfo "
        "View take"
    ),
    "evaluation.opened": "OpenedEvaluation",
    "evaluation.opened_run": "open_run",
    "files.seals": "Strict opened parsed sealed",
    "plugin.signatures": "scaled_step",
    "report.figures.batchnorm": "batchnorm_figure",
    "report.figures.certified": "certified_figure",
    "report.figures.charts": "Line Panel bar_figure histogram_figure image_figure line_figure matrix_figure",
    "run": "open_evaluation",
    "runs.folder": "json_text",
    "runs.result_file": "note_in_result write_result",
    "studies.launchers.jobs": "job_ended",
    "studies.launchers.process": "WorkerProcess",
    "studies.launchers.protocol": "JobState Launcher",
    "subjects.data.brought": "find_column",
    "subjects.data.hub": "load_data_set",
    "subjects.data.memory": "InMemory",
    "subjects.data.pictures": "check_picture picture_tensor read_picture",
    "subjects.data.spool": "memory_limit",
    "subjects.data.statistics": "channel_statistics classification_score stratified_split unit_floats",
    "subjects.data.task": "ArrayTask",
    "subjects.formats.published": "published_state",
    "subjects.formats.weights": "weights_digest",
    "subjects.trained": "open_model",
    "subjects.tuning": "new_head",
    "text.changes": "align_words mark_changes replace_words word_spans words_changed",
    "text.embeddings": "WordEmbeddings word_embeddings",
    "text.records": "TextRecord",
    "training.loop": "training_loss",
}
_WHERE = {name: module for module, names in _LAZY.items() for name in names.split()}

__all__ = [
    "CERTIFIED_RADIUS",
    "AimingPerturbation",
    "ArrayTask",
    "AttackResult",
    "Augmentation",
    "Averaged",
    "Averaging",
    "Batch",
    "BoundedVicinity",
    "Bounds",
    "BrokenData",
    "Certificate",
    "Component",
    "Cost",
    "Count",
    "DataMissing",
    "Decay",
    "DescribedMeasures",
    "DoubtingMeasurement",
    "Ensemble",
    "EpochReport",
    "Feed",
    "Finite",
    "FractionText",
    "InMemory",
    "JobState",
    "LabelMap",
    "LabelledTask",
    "Launcher",
    "LearnedSlot",
    "Library",
    "LibraryAttack",
    "LibraryOptions",
    "Line",
    "Loss",
    "Measure",
    "Measurement",
    "MeasuringTask",
    "Meter",
    "Method",
    "MethodOptions",
    "MethodState",
    "Natural",
    "NoOptions",
    "NonNegative",
    "Normalized",
    "Objective",
    "OpenedEvaluation",
    "OpenedRun",
    "OutputMap",
    "Panel",
    "ParamGroup",
    "Pass",
    "Passed",
    "PerSample",
    "Perturbation",
    "PoolingTask",
    "PortionedMeasurement",
    "Positive",
    "Progress",
    "ProportionalVicinity",
    "Quantity",
    "Rate",
    "RawTask",
    "Real",
    "RecipeError",
    "Refused",
    "Rest",
    "Result",
    "RunError",
    "RunFolder",
    "RunInfo",
    "Schedule",
    "Seed",
    "SelfTrained",
    "Size",
    "SparseVicinity",
    "Split",
    "Step",
    "Strict",
    "Task",
    "TaskInfo",
    "TextRecord",
    "Traits",
    "UnitInterval",
    "Unreadable",
    "UpdateSchedule",
    "Use",
    "Vicinity",
    "View",
    "Weights",
    "WordEmbeddings",
    "WorkerProcess",
    "Wrapper",
    "WrapperOptions",
    "align_words",
    "as_rows",
    "attack_by_radius",
    "bar_figure",
    "batchnorm_figure",
    "beta",
    "bootstrap_interval",
    "build",
    "certified_figure",
    "channel_statistics",
    "check_model_folder",
    "check_picture",
    "check_size",
    "check_zip",
    "classes_in",
    "classification_score",
    "cross_entropy",
    "derive",
    "did_you_mean",
    "dirichlet",
    "dlr",
    "echo",
    "endless_order",
    "epoch_batches",
    "evaluate_and_show",
    "evaluating",
    "find_column",
    "finite",
    "gamma",
    "guarded",
    "has_names",
    "histogram_figure",
    "hookimpl",
    "image_figure",
    "index_batches",
    "is_file",
    "is_folder",
    "is_number",
    "isolated",
    "job_ended",
    "json_text",
    "kl_divergence",
    "line_figure",
    "load_data_set",
    "margin",
    "mark_changes",
    "matrix_figure",
    "memory_limit",
    "mlp",
    "model_options",
    "new_head",
    "normal_like",
    "normalized",
    "note_in_result",
    "observer_on_request",
    "open_evaluation",
    "open_file",
    "open_model",
    "open_run",
    "opened",
    "parse_fraction",
    "parsed",
    "picture_tensor",
    "prepare",
    "published_state",
    "rate_at",
    "raw_task",
    "read_bytes",
    "read_json",
    "read_picture",
    "register",
    "replace_words",
    "result_folder",
    "result_numbers",
    "scaled_step",
    "sealed",
    "self_trained",
    "sharing_options",
    "stratified_split",
    "stream",
    "table_lines",
    "take",
    "to_device",
    "to_unit",
    "training_loss",
    "uniform_like",
    "unit_floats",
    "use",
    "weights_digest",
    "wilson_interval",
    "word_embeddings",
    "word_spans",
    "words_changed",
    "write_result",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"robustplug.api has no {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __package__), name)
