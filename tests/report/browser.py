"""Drive a headless Chromium over a pipe, with what the machine has and nothing else."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions")


def find_browser() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """Speak the DevTools protocol: JSON messages that end with a zero byte."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.held, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.held:
            data = os.read(self.back, 1 << 20)
            if not data:
                raise RuntimeError("the browser went away")
            self.held += data
        line, _, self.held = self.held.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        body: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            body["sessionId"] = self.session
        os.write(self.to, json.dumps(body).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self.number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def wait_for(self, event: str) -> None:
        while all(each.get("method") != event for each in self.events):
            self.events.append(self._next())

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Open a page in a window of a size, and wait until all of it is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console, and exceptions in it."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(each["params"]) for each in self.events if each.get("method") in kinds]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, but for the data within it."""
        sent = [each["params"] for each in self.events if each.get("method") == "Network.requestWillBeSent"]
        found = [str(params["request"]["url"]) for params in sent]
        return [address for address in found if not address.startswith("data:")]

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path: Path) -> None:
        """Write the page as a PDF."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))


@contextmanager
def running(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it afterwards."""
    read_to, write_to = os.pipe()
    read_back, write_back = os.pipe()
    flags = [*FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]

    def place() -> None:
        # The browser reads from 3 and writes to 4; either may be one of ours already.
        pair = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (read_to, write_back)]
        os.dup2(pair[0], 3)
        os.dup2(pair[1], 4)

    process = subprocess.Popen(
        [program, *flags],
        pass_fds=(3, 4),
        preexec_fn=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_to)
    os.close(write_back)
    try:
        yield Browser(write_to, read_back)
    finally:
        process.terminate()
        process.wait(30)
        os.close(write_to)
        os.close(read_back)
