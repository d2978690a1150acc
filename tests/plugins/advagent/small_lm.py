"""A small GPT-2 that negotiates: trained here, on scripted dialogues, with a tokenizer of whole words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from robustplug.api import isolated, stream
from robustplug_advagent.dialogues.data import parse_dialogue
from robustplug_advagent.dialogues.layout import ITEMS
from robustplug_advagent.dialogues.scripted import scripted_lines
from robustplug_advagent.language_models.prompts import Prompts, as_lines, read_prompts
from robustplug_advagent.protocol import Goal, Turn

PROMPTS = """
schema = 1
system = "pool $pool values $values total $total"
start = "begin"
ended = "over"
decide = "what do you take"
decide_or_walk_away = "what do you take, or nothing"
"""
PAD, UNKNOWN, END = "[PAD]", "[UNK]", "\n"


def written_prompts(folder: Path) -> Path:
    path = folder / "prompts.toml"
    path.write_text(PROMPTS, encoding="utf-8")
    return path


def negotiations(prompts: Prompts, count: int) -> Iterator[str]:
    """Yield dialogues as lines, each with its decision, as the model is asked for it."""
    for line in scripted_lines(count, stream(0, "small language model")):
        d = parse_dialogue(line)
        if d.outcome[0] > 4:
            continue
        goal = Goal(dict(zip(ITEMS, d.counts, strict=True)), dict(zip(ITEMS, d.own, strict=True)))
        said: list[Turn] = []
        for word in d.words:
            if word in ("YOU:", "THEM:"):
                said.append(Turn(word == "YOU:", ""))
            elif word != "<eos>":
                said[-1] = Turn(said[-1].mine, f"{said[-1].text} {word}".strip())
        deal = " ".join(f"{item}={taken}" for item, taken in zip(ITEMS, d.outcome, strict=False))
        yield f"{as_lines(prompts.to_decide(goal, said, False))} {deal}\n"


def train_language_model(folder: Path, steps: int = 75) -> Path:
    """Train a model of some 0.3 MB in a folder, and return the folder."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    texts = list(negotiations(read_prompts(str(written_prompts(folder)), ""), 600))
    # Long dialogues cost the most and teach the least.
    texts = [text for text in texts if len(text.split()) < 72]
    words = sorted({word for text in texts for word in text.replace("\n", " ").split()})
    vocabulary = {word: number for number, word in enumerate([PAD, UNKNOWN, END, *words])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    fast: Any = PreTrainedTokenizerFast
    wrapped = fast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)
    rows = [torch.tensor(wrapped(text).input_ids) for text in texts]
    table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    configured: Any = GPT2Config
    with isolated(0):
        model: Any = GPT2LMHeadModel(
            configured(
                vocab_size=len(vocabulary),
                n_positions=512,
                n_embd=48,
                n_layer=2,
                n_head=4,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=0,
            )
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
        rng = stream(0, "order")
        for _ in range(steps):
            batch = table[torch.randint(len(table), (14,), generator=rng)]
            batch = batch[:, : int((batch != 0).sum(1).max())]
            logits = model(input_ids=batch).logits
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    model.eval().save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
