"""A language model behind an endpoint that speaks OpenAI's protocol of chat completions."""

from __future__ import annotations

import email.utils
import hashlib
import json
import math
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from robustplug.api import Refused, Unreadable

from .cache import ReplyCache
from .completions import reply_in
from .replies import Ledger, Reply, Request

if TYPE_CHECKING:
    from .options import ChatOptions

ADDRESS, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
INSTALL = 'this needs the package openai: pip install "robustplug[lm]"'
_LARGEST = 2**23
_SHOWN = 200
# The client demands a key; servers of one's own often need none.
_NO_KEY = "none"
# Statuses after which the same request may succeed.
_PASSING = (408, 409, 429)
# Waiting before the first repetition, in seconds; it doubles with each, up to the second number.
_FIRST, _LONGEST = 0.5, 30.0


class _Fault(Exception):
    """A request failed.

    Args:
        why: what happened, without the key.
        passes: whether the same request may succeed later.
        wait: how long the endpoint asks to wait, in seconds; None if it does not say.
    """

    def __init__(self, why: str, passes: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.why, self.passes, self.wait = why, passes, wait


class Endpoint:
    """Reply with a model behind an endpoint, by the client of the package openai.

    The address is the variable OPENAI_BASE_URL, the key OPENAI_API_KEY. Nothing is sent elsewhere: redirects
    and proxies are not followed, and no recipe can name another address. The key is in the header of
    requests alone; where the endpoint sends it back, it is cut out of replies and messages.

    Args:
        options: options of the component.
        cache: the replies so far.
        sleep: function that waits for some seconds.

    Raises:
        ImportError: openai is not installed.
        Refused: no address is set, or it is none of HTTP.
    """

    def __init__(
        self,
        options: ChatOptions,
        cache: ReplyCache | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError(INSTALL) from error
        self._openai: Any = openai
        self.options, self.ledger = options, Ledger(options.max_queries)
        self.address = _address()
        self._key = os.environ.get(KEY) or _NO_KEY
        self._cache, self._sleep = cache or ReplyCache(), sleep
        self._client: Any = None
        self._lock, self._not_before = threading.Lock(), 0.0

    def facts(self) -> Mapping[str, Any]:
        """Return the address."""
        return {"address": self.address}

    def reply(self, requests: Sequence[Request], device: torch.device) -> list[Reply]:
        """Return a reply to each request, from the cache where it has one.

        Raises:
            Refused: the endpoint refuses a request, or fails more often than `retries`; the bound on requests
                is spent; or a reply cannot be kept.
        """
        # Equal requests of one batch are sent once.
        wanted = {self._digest(request): request for request in requests}
        with ThreadPoolExecutor(self.options.parallel) as pool:
            jobs = {digest: pool.submit(self._one, digest, asked) for digest, asked in wanted.items()}
            try:
                found = {digest: job.result() for digest, job in jobs.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [found[self._digest(request)] for request in requests]

    def _one(self, digest: str, request: Request) -> Reply:
        known = self._cache.get(digest)
        if known is not None:
            return known
        found = self._asked(request)
        try:
            self._cache.put(digest, found)
        except OSError as error:
            raise Refused(f"the reply cannot be kept in {self._cache.folder}: {error.strerror}") from error
        return found

    def _asked(self, request: Request) -> Reply:
        """Send a request, again and again while its failures may pass."""
        for attempt in range(self.options.retries + 1):
            self._wait()
            self.ledger.spend()
            try:
                return self._sent(request)
            except _Fault as fault:
                wait = min(_FIRST * 2**attempt, _LONGEST) if fault.wait is None else fault.wait
                if not fault.passes or attempt == self.options.retries:
                    times = f" {attempt + 1} times" if attempt else ""
                    why = f"{self.address} failed{times}: {fault.why}"
                    break
                if wait > self.options.patience:
                    asked = f"{self.address} asks to wait for {wait:.0f} s ({fault.why})"
                    why = f"{asked}: raise patience, or go on later"
                    break
                with self._lock:
                    # All requests wait where one failed: the cause is rarely its own.
                    self._not_before = max(self._not_before, time.monotonic() + wait)
        # Without the cause: an exception of the client holds the request, and with it the key.
        raise Refused(f"{why}; the replies so far are kept")

    def _wait(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            self._sleep(left)

    def _sent(self, request: Request) -> Reply:
        """Send a request once.

        Raises:
            _Fault: there is no usable answer.
        """
        openai, client = self._openai, self._opened()
        until = time.monotonic() + self.options.seconds
        try:
            with client.chat.completions.with_streaming_response.create(**self._body(request)) as answer:
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > _LARGEST or time.monotonic() > until:
                        raise _Fault(
                            f"its reply is longer than {_LARGEST} bytes or {self.options.seconds:g} s", True
                        )
        except openai.APIStatusError as error:
            raise self._by_status(error) from None
        except openai.APITimeoutError:
            raise _Fault(f"it sent no reply within {self.options.seconds:g} s", passes=True) from None
        except openai.OpenAIError as error:
            raise _Fault(self._clean(f"it cannot be reached ({error})"), passes=True) from None
        except OSError as error:
            raise _Fault(self._clean(f"the connection broke ({error})"), passes=True) from None
        except _Fault:
            raise
        except Exception as error:
            # The client's transport has exceptions of its own, which differ between its versions.
            raise _Fault(self._clean(f"the connection broke ({type(error).__name__})"), passes=True) from None
        return self._read(bytes(body))

    def _opened(self) -> Any:
        with self._lock:
            if self._client is None:
                seconds = self.options.seconds
                transport = self._openai.DefaultHttpxClient(
                    follow_redirects=False, trust_env=False, timeout=seconds
                )
                self._client = self._openai.OpenAI(
                    base_url=self.address,
                    api_key=self._key,
                    # Repetitions are counted, so they are made here.
                    max_retries=0,
                    timeout=seconds,
                    http_client=transport,
                )
            return self._client

    def _body(self, request: Request) -> dict[str, Any]:
        drawn = {"temperature": request.temperature, "seed": request.seed}
        return {
            "model": self.options.name,
            "messages": [{"role": message.role, "content": message.text} for message in request.messages],
            self.options.limit: self.options.tokens,
            **{name: value for name, value in drawn.items() if name not in self.options.omit},
        }

    def _digest(self, request: Request) -> str:
        body = {"address": self.address, **self._body(request), "drawn": [request.temperature, request.seed]}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def _read(self, body: bytes) -> Reply:
        try:
            tree = json.loads(body)
        except (ValueError, RecursionError):
            raise _Fault("its reply is no JSON", passes=True) from None
        try:
            found = reply_in(tree)
        except Unreadable as error:
            raise _Fault(self._clean(f"its reply {error}"), passes=True) from None
        return found._replace(text=self._without_key(found.text))

    def _by_status(self, error: Any) -> _Fault:
        status: int = error.status_code
        said = error.body.get("message") if isinstance(error.body, dict) else None
        # A quota that is spent is no rate: waiting does not help.
        spent = getattr(error, "code", None) == "insufficient_quota"
        passes = (status in _PASSING or status >= 500) and not spent
        detail = f": {said}" if isinstance(said, str) else ""
        hint = (
            f" (a redirect, which is not followed: set {ADDRESS} to the right address)"
            if 300 <= status < 400
            else ""
        )
        return _Fault(
            self._clean(f"status {status}{hint}{detail}"), passes, asked_to_wait(error.response.headers)
        )

    def _clean(self, text: str) -> str:
        """Return a text in one short line, without the key."""
        line = " ".join(self._without_key(text).split())
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"

    def _without_key(self, text: str) -> str:
        return text if self._key == _NO_KEY else text.replace(self._key, "[key]")


def _address() -> str:
    address = os.environ.get(ADDRESS, "").strip()
    if not address:
        raise Refused(
            f"openai-chat needs an address: set the variable {ADDRESS}, for example to "
            f"https://api.openai.com/v1 or http://localhost:8000/v1, and {KEY} to the key"
        )
    try:
        parts = urllib.parse.urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine or parts.username or parts.password or parts.query or parts.fragment:
        raise Refused(
            f"{ADDRESS} must be an address of http or https, without a name, password, query or fragment"
        )
    return address.rstrip("/")


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in the header Retry-After, a number or a date; None if there is none."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
