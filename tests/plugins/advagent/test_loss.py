from __future__ import annotations

import math

import pytest
import torch

from robustplug_advagent.agents.loss import perplexity
from robustplug_advagent.dialogues.layout import HEAD, PAD

from .agents import small_agent, small_task


def test_perplexity_is_that_of_the_words_one_by_one() -> None:
    agent, (x, _) = small_agent(2, 2.0), small_task().dialogues("validation")
    nats, count = 0.0, 0
    for row in x[:6]:
        words = [word for word in row[HEAD:].tolist() if word != PAD]
        for at in range(1, len(words)):
            with torch.no_grad():
                shares = agent(row[None, : HEAD + at]).words[0, -1].log_softmax(0)
            nats, count = nats - float(shares[words[at]]), count + 1
    found = perplexity(agent, x[:6])
    assert found.words == count
    assert found.value == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert found.low < found.value < found.high
    # Twice the data, the same mean, an interval smaller by √2.
    twice = perplexity(agent, torch.cat([x[:6], x[:6]]))
    assert math.log(twice.high / twice.value) == pytest.approx(
        math.log(found.high / found.value) / math.sqrt(2), rel=1e-4
    )
