"""A local server that speaks the protocol of chat completions, well or badly."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server does with one request.

    Attributes:
        text: content of the reply, or the whole body if `raw`.
        status, headers: of the answer.
        raw: whether the text is the body.
        wait: seconds before the answer.
        reset: whether to cut the connection instead.
        drip: seconds between the bytes of the body.
        message: further keys of the message.
        finish: reason why the reply ended.
        usage: number of tokens; None to leave it out.
    """

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bool = False
    wait: float = 0.0
    reset: bool = False
    drip: float = 0.0
    message: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    usage: tuple[int, int] | None = (20, 5)

    def body(self) -> bytes:
        if self.raw:
            return self.text.encode()
        message = {"role": "assistant", "content": self.text, **self.message}
        usage = (
            {} if self.usage is None else {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
        )
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        found = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return json.dumps({**found, **({"usage": usage} if usage else {})}).encode()


@dataclass
class Chat:
    """A running server.

    Attributes:
        address: its address, for OPENAI_BASE_URL.
        received: headers, path and body of each request, in order.
    """

    address: str
    received: list[tuple[dict[str, str], str, dict[str, Any]]] = field(default_factory=list)


Answering = Callable[[dict[str, Any], int], Answer]
"""Answer a request, given its body and the number of requests before it."""


@contextlib.contextmanager
def chat_server(answer: Answering) -> Iterator[Chat]:
    """Serve until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(chat.received)
                headers = {name.lower(): value for name, value in self.headers.items()}
                chat.received.append((headers, self.path, body))
            found = answer(body, number)
            time.sleep(found.wait)
            if found.reset:
                self.connection.close()
                return
            data = found.body()
            with contextlib.suppress(OSError):
                self.send_response(found.status)
                for name, value in {"Content-Type": "application/json", **found.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                for byte in data if found.drip else ():
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(found.drip)
                if not found.drip:
                    self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    chat = Chat(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()


def negotiate(body: dict[str, Any], _: int = 0) -> Answer:
    """Ask for everything first, then end the dialogue; take what was asked for."""
    last = body["messages"][-1]["content"]
    if "Which pieces do you take" in last:
        pool = body["messages"][0]["content"]
        counts = {item: int(pool.split(f" {item}")[0].split()[-1]) for item in ("book", "hat", "ball")}
        return Answer(" ".join(f"{item}={count}" for item, count in counts.items()))
    said = [message for message in body["messages"] if message["role"] == "assistant"]
    return Answer("<selection>" if said else "I would like everything, Sir; is that OK?")
