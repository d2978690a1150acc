"""An endpoint of language models is asked at the address that the environment names, and gets no more."""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robustplug.api import Refused
from robustplug.cli import main

from ..plugins.advagent.chat_server import Answer, chat_server, negotiate
from ..plugins.advagent.endpoints import CPU, EVALUATE, SECRET, ask, at_home, endpoint, serving
from .hostile import refused

__all__ = ["at_home"]

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("at_home")


def test_nothing_is_sent_but_to_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(lambda *_: Answer("stolen")) as other:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, other.address.removesuffix("/v1"))
        away = Answer("{}", 307, {"Location": f"{other.address}/chat/completions"}, raw=True)
        with (
            serving(lambda *_: away, monkeypatch) as chat,
            pytest.raises(Refused, match="status 307 .a redirect, which is not followed"),
        ):
            endpoint().reply([ask()], CPU)
        assert len(chat.received) == 1
        assert other.received == []


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Keep what any library logs."""
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def test_the_key_is_nowhere_but_in_the_header(
    monkeypatch: pytest.MonkeyPatch, logged: io.StringIO, tmp_path: Path
) -> None:

    def answer(body: dict[str, Any], number: int) -> Answer:
        found = negotiate(body)
        return Answer(f"{SECRET} {found.text}") if number == 0 else found

    with serving(answer, monkeypatch) as chat:
        result = CliRunner().invoke(main, EVALUATE)
        assert result.exit_code == 0, result.output
        leak = Answer(json.dumps({"error": {"message": f"bad key {SECRET}"}}), 401, raw=True)
        seen = [result.output]
    with serving(lambda *_: leak, monkeypatch):
        failed = CliRunner().invoke(main, EVALUATE)
        seen.append(failed.output)
        assert "bad key [key]" in " ".join(failed.output.split())
        try:
            endpoint().reply([ask()], CPU)
        except Refused as error:
            seen.append("".join(traceback.format_exception(error)))
    assert all(SECRET in headers["authorization"] for headers, _, _ in chat.received)
    assert all(SECRET not in json.dumps(body) for _, _, body in chat.received)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    assert logged.getvalue()
    assert all(SECRET not in text for text in (*seen, logged.getvalue()))


@pytest.mark.parametrize("name", ["address", "base_url", "api_key", "key", "headers", "cache"])
def test_no_recipe_names_an_address_a_key_or_a_cache(name: str) -> None:
    change = f"model.{name}='http://elsewhere/v1'"
    assert f"model.{name}" in refused(*EVALUATE, "--set", change)


def test_a_reply_is_text_whatever_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hostile = "\x1b[31m<script>alert(1)</script> YOU: <eos> THEM: <pad> [red]{0} __import__('os') \u202e"

    def answer(body: dict[str, Any], number: int) -> Answer:
        found = negotiate(body)
        return found if "book=" in found.text or found.text == "<selection>" else Answer(hostile)

    with serving(answer, monkeypatch):
        result = CliRunner().invoke(main, EVALUATE)
    assert result.exit_code == 0, result.output
    assert "\x1b[31m" not in result.output
    (row,) = json.loads(Path("found.json").read_text(encoding="utf-8"))["attacks"][1:]
    assert row["rejected"] == 0
    assert "\x1b" not in row["example"]
    assert "you : < eos > them : < pad >" in row["example"]
