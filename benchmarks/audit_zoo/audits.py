"""Audit models of the zoo, one or many at a time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

import robustplug

from .board import Audited
from .entries import Entry
from .measure import measured
from .models import zoo


def audited(entry: Entry, samples: int, seed: int, cache: Path | None) -> Audited:
    """Audit a model; an error of the audit is an outcome, too."""
    known = measured(entry, samples, cache)
    made = entry.make()
    facts = partial(Audited, entry.name, entry.kind, seed, known)
    started = time.perf_counter()
    try:
        found = robustplug.audit(
            made.module,
            data=made.data,
            threat=made.vicinity,
            bounds=made.bounds,
            classes=10,
            samples=samples,
            seed=seed,
            device="cpu",
        )
    except Exception as error:  # whatever it is, the other models are audited
        return facts("error", error=f"{type(error).__name__}: {error}")
    failed = [finding for finding in found.findings if finding.verdict == "failure"]
    words = {getattr(finding, "kind", "") or finding.check for finding in failed}
    numbers = {
        finding.check: dict(finding.measured)
        for finding in found.findings
        if finding.verdict not in ("pass", "not run")
    }
    seconds = time.perf_counter() - started
    return facts(found.grade, sorted(words), numbers, found.accuracy, seconds)


def by_name(job: tuple[str, int], samples: int, cache: Path | None, mnist: Path | None) -> Audited:
    """Audit the model of a name, in a process of its own."""
    torch.set_num_threads(1)
    name, seed = job
    (entry,) = (entry for entry in zoo(cache, mnist) if entry.name == name)
    return audited(entry, samples, seed, cache)


def audits(
    jobs: Sequence[tuple[str, int]], samples: int, cache: Path | None, mnist: Path | None, processes: int
) -> Iterator[Audited]:
    """Yield the audits of models by name and seed, in this order, as they end."""
    work = partial(by_name, samples=samples, cache=cache, mnist=mnist)
    if processes == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs)
