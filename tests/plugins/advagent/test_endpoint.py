"""An agent behind an endpoint: what it sends, keeps, repeats, refuses, and never tells."""

from __future__ import annotations

import email.utils
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import robustplug
from robustplug.api import Refused
from robustplug.cli import main
from robustplug_advagent.language_models.endpoint import asked_to_wait

from .agents import RULES, TASK
from .chat_server import Answer, negotiate
from .endpoints import CPU, EVALUATE, SECRET, ask, at_home, endpoint, serving

__all__ = ["at_home"]

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("at_home")

TASK_OF_FEW = {**TASK, "scenarios": 6}


def test_a_request_names_the_model_the_chat_and_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body, number: Answer("hi there"), monkeypatch) as chat:
        (reply,) = endpoint(tokens=7).reply([ask(5)], CPU)
        endpoint(omit=("seed", "temperature"), limit="max_tokens").reply([ask(5)], CPU)
    assert reply == ("hi there", True, 20, 5)
    headers, path, body = chat.received[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {SECRET}"
    said = [{"role": "system", "content": "negotiate"}, {"role": "user", "content": "hello"}]
    assert body == {
        "model": "m", "messages": said, "max_completion_tokens": 7, "temperature": 0.5, "seed": 5,
    }  # fmt: skip
    assert chat.received[1][2] == {"model": "m", "messages": said, "max_tokens": 100}


def test_nothing_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body, number: Answer(f"reply {number}"), monkeypatch) as chat:
        first = endpoint(parallel=4).reply([ask(0), ask(1), ask(0)], CPU)
        assert len(chat.received) == 2
        assert first[0] == first[2]
        assert endpoint(max_queries=1).reply([ask(1), ask(0)], CPU) == [first[1], first[0]]
        assert len(chat.received) == 2
        monkeypatch.setenv("OPENAI_BASE_URL", f"{chat.address}/other")
        endpoint().reply([ask(0)], CPU)
        assert len(chat.received) == 3, "another address is another service"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("reply", "other"),
        lambda text: "",
        lambda text: "[1]",
        lambda text: text.replace('"whole": true', '"whole": 1'),
    ],
)
def test_a_damaged_reply_is_asked_for_again(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body, number: Answer("reply"), monkeypatch) as chat:
        endpoint().reply([ask()], CPU)
        (path,) = Path("kept").rglob("*.json")
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.warns(UserWarning, match="asked for again"):
            (reply,) = endpoint().reply([ask()], CPU)
        assert reply.text == "reply"
        assert len(chat.received) == 2
        endpoint().reply([ask()], CPU)
        assert len(chat.received) == 2


def test_a_reply_is_not_taken_for_that_of_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda body, number: Answer(f"reply {number}"), monkeypatch) as chat:
        endpoint().reply([ask(0)], CPU)
        (path,) = Path("kept").rglob("*.json")
        endpoint().reply([ask(1)], CPU)
        (other,) = set(Path("kept").rglob("*.json")) - {path}
        other.write_bytes(path.read_bytes())
        with pytest.warns(UserWarning, match="is the reply to another request"):
            assert endpoint().reply([ask(1)], CPU)[0].text == "reply 2"
    assert len(chat.received) == 3


FAILURES = {
    "500": Answer('{"error": {"message": "it hurts"}}', 500, raw=True),
    "busy": Answer("busy", 503, raw=True),
    "no JSON": Answer("{'hi'", raw=True),
    "nested": Answer("[" * 100_000, raw=True),
    "no choice": Answer('{"choices": []}', raw=True),
    "wrong types": Answer('{"choices": [{"message": {"content": 3}}]}', raw=True),
    "a list": Answer("[]", raw=True),
    "reset": Answer(reset=True),
    "slow": Answer("late", wait=1.0),
    "dripping": Answer("late" * 20, drip=0.05),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_may_pass_is_tried_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    seconds = 0.4 if name in ("slow", "dripping") else 20.0

    def answer(body: Any, number: int) -> Answer:
        return FAILURES[name] if number == 0 else Answer("at last")

    with serving(answer, monkeypatch) as chat:
        (reply,) = endpoint(waits, seconds=seconds).reply([ask()], CPU)
    assert reply.text == "at last"
    assert len(chat.received) == 2
    assert len(waits) == 1
    assert 0.2 < waits[0] <= 0.5


def test_what_never_passes_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with (
        serving(lambda body, number: FAILURES["500"], monkeypatch) as chat,
        pytest.raises(Refused, match="failed 3 times: status 500: it hurts; the replies so far are kept"),
    ):
        endpoint(waits, retries=2).reply([ask()], CPU)
    assert len(chat.received) == 3
    assert waits == sorted(waits)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_cannot_pass_is_not_repeated(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"error": {"message": "no such model"}})
    with (
        serving(lambda *_: Answer(body, status, raw=True), monkeypatch) as chat,
        pytest.raises(Refused, match=f"failed: status {status}: no such model"),
    ):
        endpoint().reply([ask()], CPU)
    assert len(chat.received) == 1


def test_the_endpoint_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    slow_down = Answer("{}", 429, {"Retry-After": "17"}, raw=True)

    def answer(body: Any, number: int) -> Answer:
        return slow_down if number == 0 else Answer("thanks")

    with serving(answer, monkeypatch) as chat:
        endpoint(waits).reply([ask()], CPU)
        assert len(waits) == 1
        assert 16 < waits[0] <= 17
    with (
        serving(lambda *_: slow_down, monkeypatch) as chat,
        pytest.raises(Refused, match="asks to wait for 17 s"),
    ):
        endpoint(patience=10).reply([ask(1)], CPU)
    assert len(chat.received) == 1
    spent = Answer('{"error": {"message": "no credit", "code": "insufficient_quota"}}', 429, raw=True)
    with serving(lambda *_: spent, monkeypatch) as chat, pytest.raises(Refused, match="no credit"):
        endpoint().reply([ask(2)], CPU)
    assert len(chat.received) == 1


def test_the_bound_counts_repetitions_and_what_was_answered_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(body: Any, number: int) -> Answer:
        return FAILURES["500"] if number == 1 else Answer("fine")

    with serving(answer, monkeypatch) as chat:
        with pytest.raises(Refused, match="the bound of 3 requests is spent: raise max_queries"):
            endpoint(max_queries=3).reply([ask(number) for number in range(4)], CPU)
        assert len(chat.received) == 3
        endpoint(max_queries=2).reply([ask(number) for number in range(4)], CPU)
        assert len(chat.received) == 5


def test_refusals_and_cut_replies_are_no_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        Answer(message={"content": None, "refusal": "I cannot help"}),
        Answer(""),
        Answer("and then", finish="length"),
        Answer("bad words", finish="content_filter"),
        Answer("fine", usage=None),
    ]
    with serving(lambda body, number: answers[number], monkeypatch):
        found = endpoint().reply([ask(number) for number in range(5)], CPU)
    assert [reply.whole for reply in found] == [False, False, False, False, True]
    assert [reply.text for reply in found] == ["I cannot help", "", "and then", "bad words", "fine"]
    assert found[4].read is None


@pytest.mark.parametrize(
    "address",
    [
        "", "ftp://x/v1", "localhost:80", "http://", "http://me:word@x/v1", "http://x/v1?key=1", "http://[x/v1",
    ],
)  # fmt: skip
def test_addresses_that_are_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(Refused, match="OPENAI_BASE_URL"):
        endpoint()


def test_an_evaluation_that_the_bound_stops_goes_on_and_pays_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(negotiate, monkeypatch) as chat:
        first = CliRunner().invoke(main, [*EVALUATE, "--max-queries", "7"])
        assert len(chat.received) == 7
        assert "the bound of 7 requests is spent" in " ".join(first.output.split())
        second = CliRunner().invoke(main, [*EVALUATE, "--set", "model.max_queries=1000"])
        assert second.exit_code == 0, second.output
        paid = [json.dumps(body, sort_keys=True) for _, _, body in chat.received]
        assert len(paid) == len(set(paid))
        (row,) = json.loads(Path("found.json").read_text(encoding="utf-8"))["attacks"][1:]
    assert row["measures"]["failed deals %"]["mean"] == 0
    assert row["measures"]["queries"]["mean"] > 1
    assert row["measures"]["tokens read"]["mean"] == pytest.approx(20 * row["measures"]["queries"]["mean"])
    assert "i would like everything , sir ; is that ok ?" in row["example"]


@pytest.mark.slow
def test_a_killed_evaluation_pays_for_nothing_twice_but_what_was_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = [*EVALUATE, "--set", "model.parallel=1"]
    started: list[subprocess.Popen[bytes]] = []

    def answer(body: dict[str, Any], number: int) -> Answer:
        if number == 7:
            started[0].kill()
            started[0].wait()
        return negotiate(body)

    with serving(answer, monkeypatch) as chat:
        started.append(subprocess.Popen([sys.executable, "-m", "robustplug", *command]))
        assert started[0].wait(timeout=200) == -9
        assert len(chat.received) == 8
        assert CliRunner().invoke(main, command).exit_code == 0
    paid = [json.dumps(body, sort_keys=True) for _, _, body in chat.received]
    assert len(paid) - len(set(paid)) == 1
    assert paid.count(paid[7]) == 2, "the request that was under way"


def test_prompts_are_stored_with_the_result_and_can_be_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from importlib import resources

    own = resources.files("robustplug_advagent.language_models").joinpath("prompts", "negotiator.toml")
    changed = tmp_path / "mine.toml"
    changed.write_text(
        own.read_text(encoding="utf-8").replace("You negotiate", "You haggle"), encoding="utf-8"
    )
    task: dict[str, Any] = {
        "task": TASK_OF_FEW,
        "vicinity": {**RULES, "words": 12, "unknown": True},
        "device": "cpu",
        "samples": 2,
    }
    rows: list[Any] = [
        {"use": "lm-attack", "agent": "openai-chat:evil", "omit": ["seed"], "limit": "max_tokens"}
    ]
    with serving(negotiate, monkeypatch) as chat:
        model = robustplug.build(
            "model", "openai-chat", name="m", prompts=str(changed),
            info=robustplug.build("task", TASK["use"], dialogues=64, unknown_below=2).info,
        )  # fmt: skip
        result = robustplug.evaluate(model, attacks=rows, out=tmp_path / "out", **task)
    body = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert "You haggle" in body["meta"]["loaded"]["prompts"]["system"]
    assert body["meta"]["loaded"]["address"] == chat.address
    assert "bad deal" in body["attacks"][1]["options"]["facts"]["prompts"]["system"]
    asked = {body["model"]: ("seed" in body, "max_tokens" in body) for _, _, body in chat.received}
    assert asked == {"m": (True, False), "evil": (False, True)}
    assert result.attacks[1].measures["agree %"].count == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("schema = 1", "schema = 2"), "must have schema = 1"),
        (lambda text: text.replace("start =", "begin ="), "must have schema = 1 and system, start"),
        (lambda text: text.replace("$pool", "$pond"), r"names \$pond; there are \$pool"),
        (lambda text: text.replace("$pool", "$ 5"), "names nothing: write"),
        (lambda text: text + "x", "is no TOML"),
    ],
)
def test_broken_files_of_prompts_are_refused(change: Any, why: str, tmp_path: Path) -> None:
    from importlib import resources

    from robustplug_advagent.language_models.prompts import read_prompts

    own = resources.files("robustplug_advagent.language_models").joinpath("prompts", "negotiator.toml")
    (tmp_path / "p.toml").write_text(change(own.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(Refused, match=why):
        read_prompts(str(tmp_path / "p.toml"), "negotiator")
    with pytest.raises(Refused, match="does not exist"):
        read_prompts(str(tmp_path / "q.toml"), "negotiator")


def test_requests_are_sent_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=30)

    def answer(body: Any, number: int) -> Answer:
        together.wait()
        return Answer(f"seed {body['seed']}")

    with serving(answer, monkeypatch):
        found = endpoint(parallel=4).reply([ask(number) for number in range(8)], CPU)
    assert [reply.text for reply in found] == [f"seed {number}" for number in range(8)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0.25", 0.25),
        ("-5", 0.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        (email.utils.formatdate(0, usegmt=True), 0.0),
    ],
)
def test_the_header_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert asked_to_wait({"retry-after": text}) == seconds


def test_a_date_is_a_time_from_now() -> None:
    date = email.utils.formatdate(time.time() + 50, usegmt=True)
    assert 40 < (asked_to_wait({"retry-after": date}) or 0) <= 50
