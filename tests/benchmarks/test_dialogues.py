from __future__ import annotations

import pytest
from dialogues import WORK, differing, negotiate

import robustplug

from ..plugins.advagent.agents import RULES, small_agent, small_task


@pytest.mark.parametrize("label", WORK)
def test_dialogues_are_the_same_in_batches_and_one_at_a_time(label: str) -> None:
    name, options, _ = WORK[label]
    agent, task = small_agent(5), small_task()
    short = {**options, "changes": 1} if "attack" in name else options
    short |= {"reply_words": 3} if name == "preemptive-attack" else {}
    count = 12 if name == "partner" else 3
    rules = robustplug.build("vicinity", "rules", turns=RULES["turns"], words=RULES["words"])
    batched = negotiate(agent, task, rules, name, short, count, count, 512)
    alone = negotiate(agent, task, rules, name, short, count, 1, 1 if count > 3 else 16)
    assert len(batched.dialogues) == count
    assert len({tuple(row) for row in batched.dialogues}) > 1
    assert differing(batched, alone) == 0
    other = negotiate(agent, task, rules, name, short, count - 1, 2, 512)
    assert differing(other, batched) == 0
