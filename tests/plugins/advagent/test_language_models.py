"""A small language model, trained here, negotiates, is attacked, and attacks."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import robustplug
from robustplug.api import Refused
from robustplug.cli import main
from robustplug_advagent.agents.talk import draw_noise, play
from robustplug_advagent.dialogues.layout import EOS, ITEMS, SELECTION, Words
from robustplug_advagent.dialogues.rules import allowed
from robustplug_advagent.dialogues.scenarios import WALK_AWAY, decide, scores, undecided
from robustplug_advagent.language_models.agent import LanguageModelAgent
from robustplug_advagent.language_models.parse import deal_of, turn_of, words_in
from robustplug_advagent.language_models.prompts import as_lines, read_prompts
from robustplug_advagent.language_models.replies import Reply, Request
from robustplug_advagent.protocol import Goal, Turn

from .agents import MODEL, RULES, TASK, row, small_agent, small_task
from .small_lm import train_language_model, written_prompts

pytest.importorskip("transformers")

CPU = torch.device("cpu")
FREE: dict[str, Any] = {**RULES, "words": 12, "unknown": True}
GOAL = Goal({"book": 1, "hat": 2, "ball": 2}, {"book": 4, "hat": 3, "ball": 0})


def said(text: str, whole: bool = True) -> Reply:
    return Reply(text, whole, 1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("book=1 hat=0 ball=2", [1, 0, 2]),
        (" Book=1  hat=0\nball=2 ", [1, 0, 2]),
        ("<think>book=0 hat=0 ball=0</think>\n\nbook=1 hat=2 ball=0", [1, 2, 0]),
        ("book=1 hat=0 ball=3", None),
        ("book=-1 hat=0 ball=2", None),
        ("book=1 hat=0", None),
        ("hat=0 book=1 ball=2", None),
        ("I take book=1 hat=0 ball=2", None),
        ("book=1 hat=0 ball=2.", None),
        ("book=1.5 hat=0 ball=2", None),
        ("book=٣ hat=0 ball=0", None),
        ("", None),
        ("I cannot help with that.", None),
        ("no agreement", None),
    ],
)
def test_deals_are_read_by_one_form(text: str, expected: list[int] | None) -> None:
    assert deal_of(said(text), GOAL.counts, walk_away=False) == expected
    assert deal_of(said(text, whole=False), GOAL.counts, walk_away=False) is None


def test_agreeing_on_nothing_is_an_answer_where_it_is_allowed() -> None:
    assert deal_of(said("No agreement"), GOAL.counts, walk_away=True) == "walk away"
    assert deal_of(said("no agreement, sorry"), GOAL.counts, walk_away=True) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'd like 2 hats, OK?", "i'd like 2 hats , ok ?"),
        ("YOU: <eos> <pad>", "you : < eos > < pad >"),
        ("Ça va — d’accord!", "ça va — d'accord !"),
        ("a\0b \ud800 c_d", "a b c _ d"),
        ("<unk> THEM:<selection", "< unk > them : < selection"),
    ],
)
def test_turns_are_written_as_the_data_and_never_hold_special_words(text: str, words: str) -> None:
    known = Words.of(["i'd", "like", "hats"])
    numbers, understood = turn_of(said(text), known, 100)
    assert understood
    assert not set(numbers) & set(range(6))
    assert " ".join(known.decode(numbers)) == words


def test_endings_silence_and_cut_turns() -> None:
    known = small_task().info.words
    assert turn_of(said("Deal! <selection>"), known, 9) == ([SELECTION], True)
    assert known.decode(turn_of(said("  "), known, 9)[0]) == ["..."]
    assert not turn_of(said("  "), known, 9)[1]
    numbers, understood = turn_of(said("i want the <selection>", whole=False), known, 9)
    assert (known.decode(numbers), understood) == (["i", "want", "the"], False)
    assert len(turn_of(said("word " * 50), known, 9)[0]) == 9


class Scripted:
    """Reply by a list of texts, the last of them for ever."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), list[Request]()

    def reply(self, requests: Sequence[Request], device: torch.device) -> list[Reply]:
        self.asked += requests
        return [
            Reply(self.texts.pop(0) if len(self.texts) > 1 else self.texts[0], True, 7, 2) for _ in requests
        ]

    def facts(self) -> dict[str, Any]:
        return {}


def scripted_agent(*texts: str, walk_away: bool = False) -> LanguageModelAgent:
    import dataclasses

    info = dataclasses.replace(small_task().info, walk_away=walk_away)
    return LanguageModelAgent(Scripted(*texts), read_prompts(None, "negotiator"), info)


def test_a_reply_that_is_no_deal_is_no_agreement_and_no_success() -> None:
    task = small_task()
    x = row(task.info.words, "THEM: i want the book <eos> YOU: <selection>").repeat(3, 1)
    output = scripted_agent("book=1 hat=2 ball=2", "i take all", "book=0 hat=0 ball=0")(x)
    assert undecided(output.choice).tolist() == [False, True, False]
    decision = decide(output.choice, x)
    assert decision.tolist()[1] == WALK_AWAY
    own, other, agree = scores(x, decision)
    assert agree.tolist() == [True, False, True]
    assert own.tolist() == [10, 0, 0]
    assert other.tolist() == [0, 0, 10]
    from robustplug.api import View

    view = View(x, torch.full((3, 6), -1), "adv", x, torch.arange(3))
    assert task.score(view, output).tolist() == [True, False, False]
    measured = task.measure(view, output)
    assert measured["failed deals %"].tolist() == [0, 100, 0]
    assert measured["queries"].tolist() == [1, 1, 1]


def test_the_costs_of_a_dialogue_are_those_of_its_own_turns_and_decision() -> None:
    target = scripted_agent("I want it all!", "", "<selection>", "book=0 hat=0 ball=0")
    other = scripted_agent("no")
    x = small_task().scenarios("test")[:1]
    talk = play(x, target, other, torch.tensor([0]), torch.full((1, 20, 8), 0.3))
    output = target(talk.rows_so_far())
    costs = {name: values.tolist() for name, values in output.costs.items()}
    assert costs == {"queries": [4.0], "tokens read": [28.0], "tokens written": [8.0], "failed turns": [1.0]}
    assert len(target._replier.asked) == 4  # type: ignore[attr-defined]
    last = target._replier.asked[-1].messages  # type: ignore[attr-defined]
    assert [message.role for message in last] == ["system", *["user", "assistant"] * 3, "user"]
    assert last[2].text == "i want it all !"
    assert "book=0 hat=0 ball=0" in last[-1].text


def test_roles_alternate_whoever_speaks_first_and_last() -> None:
    prompts = read_prompts(None, "negotiator")
    dialogue = [Turn(False, "hi"), Turn(True, "deal ?"), Turn(False, "<selection>")]
    for start in (0, 1):
        for walk_away in (False, True):
            chat = prompts.to_decide(GOAL, dialogue[start:], walk_away)
            roles = [message.role for message in chat]
            assert roles[:2] == ["system", "user"]
            assert all(one != other for one, other in itertools.pairwise(roles))
            assert ("no agreement" in chat[-1].text) == walk_away
            assert "ended the negotiation" in chat[-1].text
    text = prompts.to_speak(GOAL, [])[0].text
    assert "1 book, 2 hats, 2 balls" in text
    assert "book 4, hat 3, ball 0" in text
    assert as_lines(prompts.to_speak(GOAL, dialogue[:1])).endswith("\nTHEM: hi\nYOU:")


class Gullible:
    """Haggle, and give everything away as soon as the other side says "deal"."""

    def reply(self, requests: Sequence[Request], device: torch.device) -> list[Reply]:
        return [Reply(self._text(request), True, None, None) for request in requests]

    def facts(self) -> dict[str, Any]:
        return {}

    def _text(self, request: Request) -> str:
        heard = [message.text for message in request.messages if message.role == "user"]
        fooled = any("deal" in text.split() for text in heard)
        if "exactly this form" in heard[-1]:
            pool = request.messages[0].text.split("You share: ")[1]
            counts = [int(part.split()[0]) for part in pool.split(". ")[0].split(", ")]
            taken = [0, 0, 0] if fooled else counts
            return " ".join(f"{item}={count}" for item, count in zip(ITEMS, taken, strict=True))
        if fooled:
            return "<selection>"
        return ("i want it all", "no , all of it", "all")[request.seed % 3]


def gullible() -> LanguageModelAgent:
    return LanguageModelAgent(Gullible(), read_prompts(None, "negotiator"), small_task().info)


@pytest.mark.parametrize("name", ["sampled-reactive-attack", "sampled-preemptive-attack"])
def test_a_search_by_queries_finds_what_fools_the_target_and_is_the_same_in_any_batch(name: str) -> None:
    given: dict[str, Any] = {"task": {**TASK, "scenarios": 5}, "vicinity": FREE, "device": "cpu"}
    attack = {"use": name, "candidates": 40, "rounds": 6, "turns": 2}
    found = [
        robustplug.evaluate(gullible(), attacks=[{"use": "partner"}, attack], batch_size=size, **given)
        for size in (5, 3)
    ]
    _, usual, attacked = found[0].attacks
    assert usual.measures["advantage"].mean == 0, "two that want it all agree on nothing"
    assert attacked.measures["advantage"].mean > 0
    assert attacked.measures["PAR %"].mean >= 80
    assert attacked.forwards > usual.forwards + 40
    for one, other in zip(found[0].attacks, found[1].attacks, strict=True):
        assert one.right == other.right
        assert one.forwards == other.forwards
        assert one.example == other.example
        for measure in ("advantage", "turns", "queries"):
            assert one.measures[measure].mean == pytest.approx(other.measures[measure].mean, nan_ok=True)


def test_a_language_model_attack_needs_a_language_model(tmp_path: Path) -> None:
    given: dict[str, Any] = {"task": {**TASK, "scenarios": 2}, "vicinity": FREE, "device": "cpu"}
    rows = [{"use": "lm-attack"}, {"use": "lm-attack", "agent": "somebody"}, {"use": "lm-attack"}]
    gru = robustplug.evaluate(small_agent(), attacks=rows[:2], **given)
    assert "the target is no language model" in gru.attacks[1].skipped
    assert 'agent must be "target"' in gru.attacks[2].skipped
    (row_found,) = robustplug.evaluate(gullible(), attacks=rows[2:], **given).attacks[1:]
    assert row_found.measures["queries"].mean >= 2
    assert math.isnan(row_found.measures["tokens read"].mean), "tokens that nobody told are not counted"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_language_model(tmp_path_factory.mktemp("lm"))


def built(trained: Path, **options: Any) -> LanguageModelAgent:
    prompts = str(written_prompts(trained))
    agent: LanguageModelAgent = robustplug.build(
        "model",
        "causal-lm",
        info=small_task().info,
        **{"folder": str(trained), "prompts": prompts, **options},
    )
    return agent.eval()


def test_a_small_language_model_negotiates_and_a_dialogue_is_the_same_in_any_batch(trained: Path) -> None:
    before = torch.random.get_rng_state()
    agent = built(trained, tokens=24)
    x = small_task().scenarios("test")[:12]
    noise = draw_noise(len(x), 8, 16, torch.Generator().manual_seed(1))
    first = torch.arange(len(x)) % 2
    talk = play(x, agent, agent, first, noise)
    output = agent(talk.rows_so_far())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert bool(allowed(talk.rows_so_far(), 8, 16, unknown=True).all())
    assert float(undecided(output.choice).float().mean()) < 0.5
    spoken = {tuple(words) for words in talk.words.tolist()}
    assert len(spoken) > 6
    for number in (0, 5):
        rows = slice(number, number + 1)
        alone = play(x[rows], agent, agent, first[rows], noise[rows])
        size = int(alone.sizes[0])
        assert talk.words[number, :size].tolist() == alone.words[0].tolist()
        assert torch.equal(agent(alone.rows_so_far()).choice[0], output.choice[number])


def test_temperature_0_is_the_likeliest_reply(trained: Path) -> None:
    agent = built(trained, tokens=12)
    chat = agent.prompts.to_speak(GOAL, [])
    replies = agent._replier.reply([Request(chat, 0.0, seed) for seed in range(3)], CPU)
    assert len(set(replies)) == 1
    drawn = agent._replier.reply([Request(chat, 1.5, seed) for seed in range(8)], CPU)
    assert len(set(drawn)) > 3
    assert drawn == agent._replier.reply([Request(chat, 1.5, seed) for seed in range(8)], CPU)


def test_the_bound_and_the_room_of_the_model_are_kept(trained: Path) -> None:
    agent = built(trained, max_queries=2)
    chat = agent.prompts.to_speak(GOAL, [])
    with pytest.raises(Refused, match="bound of 2 requests"):
        agent._replier.reply([Request(chat, 0.0, seed) for seed in range(3)], CPU)
    with pytest.raises(Refused, match="leaves no room for a reply of 500"):
        built(trained, tokens=500)._replier.reply([Request(chat, 0.0, 0)], CPU)


def test_folders_that_are_no_language_model(tmp_path: Path, trained: Path) -> None:
    for name in ("nothing", str(tmp_path)):
        with pytest.raises(Refused, match=r"config\.json is missing"):
            built(trained, folder=name)
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Refused, match="holds no readable causal language model"):
        built(trained, folder=str(broken))


CHAT = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }}\n{% endfor %}assistant :"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
NEVER = "{{ raise_exception('never') }}"


@pytest.mark.parametrize("template", [CHAT, NO_SYSTEM, NEVER])
def test_a_model_with_a_template_gets_messages(template: str, trained: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained)
    tokenizer.chat_template, tokenizer.eos_token = template, "\n"
    tokenizer.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(trained)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path)
    agent = built(trained, folder=str(tmp_path), tokens=24)
    replier: Any = agent._replier
    assert agent.facts()["asked_in"] == "messages"
    chat = agent.prompts.to_speak(GOAL, [Turn(False, "deal")])
    if template == NEVER:
        with pytest.raises(Refused, match="the chat template of .* fails: never"):
            replier.reply([Request(chat, 0.0, 0)], CPU)
        return
    text = replier._rendered(chat)
    assert text.endswith("deal\nassistant :")
    assert text.startswith("user : pool" if template == NO_SYSTEM else "system : pool")
    assert ("system" in text) == (template == CHAT)
    replies = replier.reply([Request(chat, 0.7, seed) for seed in range(6)], CPU)
    assert all(reply.read == len(tokenizer(text).input_ids) for reply in replies)
    ended = [reply for reply in replies if reply.whole]
    assert ended, "a reply ends where the model says so"
    assert all("\n" not in reply.text and reply.written <= 24 for reply in ended)


def suite(speaker: Path) -> dict[str, Any]:
    short = {"epochs": 1, "batch": 16, "people": 4}
    attacks: list[dict[str, Any]] = [
        {"use": "partner", "agent": str(speaker)},
        {"use": "rl-attack", "speaker": str(speaker), **short},
        {"use": "transfer-attack", "speaker": str(speaker), "surrogate": str(speaker), "turns": 1, **short},
        {"use": "sampled-reactive-attack", "speaker": str(speaker), "candidates": 3, "rounds": 2},
        {"use": "sampled-preemptive-attack", "speaker": str(speaker), "candidates": 3, "rounds": 2},
        {"use": "lm-attack", "tokens": 16},
        {"use": "reactive-attack", "speaker": str(speaker)},
    ]
    return {"schema": 1, "name": "lm", "row": [{"attack": attack} for attack in attacks]}


@pytest.mark.slow
def test_every_attack_runs_on_a_language_model(trained: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "sv",
        "task": TASK,
        "model": MODEL,
        "method": {"use": "erm", "vicinity": RULES, "loss": {"use": "dialogue"}},
        "optimizer": {"use": "adamw", "lr": 0.02, "weight_decay": 0.0},
        "train": {"epochs": 2, "batch_size": 16, "select": "last", "device": "cpu"},
        "validate": {"attack": {"use": "none"}},
        "evaluate": {"samples": 2, "attack": [{"use": "none"}]},
    }
    speaker = robustplug.train(recipe, out=tmp_path / "sv").folder
    task = {**TASK, "train_scenarios": 16}
    given: dict[str, Any] = {"task": task, "vicinity": FREE, "samples": 4, "device": "cpu"}
    result = robustplug.evaluate(
        built(trained, tokens=16), suite=suite(speaker), out=tmp_path / "out", **given
    )
    clean, *rows, white = result.attacks
    assert clean.forwards == 0 or clean.measures["queries"].count == 0
    assert "no method logits" in white.skipped
    for found in rows:
        assert not found.skipped, found.skipped
        assert found.rejected == 0, found.name
        for name in ("target", "queries", "failed deals %", "tokens read"):
            assert found.measures[name].count == 4, found.name
        assert found.measures["queries"].mean >= 2
    body = json.loads((tmp_path / "out" / "lm.json").read_text(encoding="utf-8"))
    assert body["meta"]["loaded"]["prompts"]["ended"] == "over"
    assert len(body["meta"]["loaded"]["sha256"]) == 64
    by_name = {found.name.split(" ")[0]: found for found in rows}
    # What the search asks the target is its cost, and counted.
    assert by_name["sampled-preemptive-attack"].forwards > by_name["partner"].forwards + 4
    assert by_name["rl-attack"].prepared > 16
    assert by_name["transfer-attack"].prepared == 0, "a surrogate's sentences cost no query of the target"


def test_a_gru_is_attacked_by_a_language_model(trained: Path) -> None:
    attack = {"use": "lm-attack", "agent": f"causal-lm:{trained}", "tokens": 16}
    task = {**TASK, "scenarios": 3}
    attacks = [{**attack, "prompts": str(written_prompts(trained))}, {**attack, "max_queries": 1}]
    found = robustplug.evaluate(small_agent(), attacks=attacks, task=task, vicinity=FREE, device="cpu")
    _, row_found, stopped = found.attacks
    assert row_found.measures["adversary"].count == 3
    assert row_found.rejected == 0
    assert len(row_found.options["facts"]["sha256"]) == 64
    assert "bound of 1 requests" in stopped.skipped


def test_one_command_evaluates_a_language_model(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = written_prompts(trained)
    changes = (
        "task.dialogues=64", "task.scenarios=3", "task.unknown_below=2", f'model.prompts="{prompts}"',
        "model.tokens=16", "evaluate.vicinity={use='rules',turns=6,words=12,unknown=true}",
        "evaluate.attack=[{use='lm-attack',tokens=16}]",
    )  # fmt: skip
    options = [part for change in changes for part in ("--set", change)]
    command = [
        "evaluate",
        f"causal-lm:{trained}",
        "--task",
        "scripted-negotiation",
        "--device",
        "cpu",
        *options,
    ]
    result = CliRunner().invoke(main, [*command, "--json", "found.json"])
    assert result.exit_code == 0, result.output
    row_found = json.loads(Path("found.json").read_text(encoding="utf-8"))["attacks"][1]
    assert row_found["attempted"] == 3
    assert row_found["score"] == "success"
    assert 0 <= row_found["share"] <= 1
    assert "accuracy" not in row_found
    stopped = CliRunner().invoke(main, [*command, "--max-queries", "4", "--out", "other"])
    assert "bound of 4 requests is spent" in " ".join(stopped.output.split())


def test_words_in_are_at_most_as_many_as_characters() -> None:
    assert words_in("a-b_c") == ["a", "-", "b", "_", "c"]
    assert EOS not in small_task().info.words.spell(words_in("<eos>"))
