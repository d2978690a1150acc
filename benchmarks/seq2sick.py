"""Time Seq2Sick per sentence, in a batch against one at a time, on one model in one run.

    python benchmarks/seq2sick.py
    python benchmarks/seq2sick.py --run runs/seq2seq-multi30k --keywords 1

Without --run, a model of the recipe seq2seq-synthetic is first trained for two epochs. Both ways attack the
same sentences with the same options and must find the same words.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import torch
from torch import Tensor

import robustplug
from robustplug.api import Batch, Feed, Step, View, open_run, stream
from robustplug.evaluation.setting import plain_objective


def attacked(task: Any, model: Any, batch: Batch, attack: Any) -> tuple[Tensor, float, int]:
    """Return the sentences that an attack finds, its seconds, and its backward passes, one a sentence."""
    step = Step(model, plain_objective(robustplug.build("loss", "translation")), task, batch, stream(0, "x"))
    vicinity = robustplug.build("vicinity", "word-replacement")
    vicinity.inform(task.info)
    began = time.perf_counter()
    found = attack(step, View.of(batch, "adv"), vicinity).x
    return found, time.perf_counter() - began, step.meter.backwards


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", help="run folder of a model to attack")
    parser.add_argument("--sentences", type=int, default=256, help="number attacked as one batch")
    parser.add_argument("--alone", type=int, default=12, help="number of these attacked one at a time")
    parser.add_argument("--keywords", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            quick = ["train.epochs=2", "validate.samples=8", "evaluate.samples=8"]
            robustplug.train("seq2seq-synthetic", overrides=quick, out=folder)
        opened = open_run(options.run or folder)
    torch.set_num_threads(options.threads)
    attack = robustplug.build("perturbation", "seq2sick", keywords=options.keywords, steps=options.steps)
    batch = next(iter(opened.task.batches("test", Feed(batch_size=options.sentences))))
    rows = [slice(row, row + 1) for row in range(min(options.alone, len(batch)))]
    singles = [Batch(batch.x[row], batch.y[row], batch.index[row]) for row in rows]
    attacked(opened.task, opened.model, singles[0], attack)  # to warm up
    together, seconds, passes = attacked(opened.task, opened.model, batch, attack)
    results = [attacked(opened.task, opened.model, single, attack) for single in singles]
    alone = sum(result[1] for result in results)
    same = sum(bool(torch.equal(result[0][0], together[row])) for row, result in enumerate(results))
    name = options.run or "seq2seq-synthetic, 2 epochs"
    print(f"torch {torch.__version__}, {options.threads} threads, {name}")
    print(
        f"one batch of {len(batch)}:    {1000 * seconds / len(batch):8.1f} ms per sentence, "
        f"{passes} backwards"
    )
    print(f"one at a time, {len(singles)}: {1000 * alone / len(singles):8.1f} ms per sentence")
    print(f"ratio: {alone / len(singles) / (seconds / len(batch)):.1f}")
    print(f"the same words for {same} of {len(singles)} sentences")


if __name__ == "__main__":
    main()
