"""Keep the replies of an endpoint on disk, so that none is paid for twice."""

from __future__ import annotations

import json
import os
import threading
import warnings
from pathlib import Path
from typing import Annotated

from robustplug.api import Bounds, Strict, Unreadable, opened, parsed, read_json, sealed

from .replies import Reply

VARIABLE = "ROBUSTPLUG_REPLIES"
_LARGEST = 2**24
_Tokens = Annotated[int, Bounds(ge=0)]


class _Stored(Strict):
    text: str
    whole: bool
    read: _Tokens | None
    written: _Tokens | None


class ReplyCache:
    """A folder with a file for each reply, named by the digest of its request.

    A file is complete or absent, whenever the process is killed, and processes may share the folder. Each is
    sealed with the digest of its request; a damaged or changed one is asked for again.

    Args:
        folder: the folder; None for that of the variable ROBUSTPLUG_REPLIES, or else evaluations/replies.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(os.environ.get(VARIABLE) or "evaluations/replies")

    def get(self, request: str) -> Reply | None:
        """Return the reply to the request with a digest; None if there is none."""
        path = self._path(request)
        try:
            body, belongs = opened(read_json(path, _LARGEST))
            if belongs != {"request": request}:
                raise Unreadable("is the reply to another request")
            stored = parsed(_Stored, body)
        except FileNotFoundError:
            return None
        except Unreadable as error:
            warnings.warn(f"the reply {path} {error}; it is asked for again", stacklevel=2)
            return None
        return Reply(stored.text, stored.whole, stored.read, stored.written)

    def put(self, request: str, reply: Reply) -> None:
        """Keep a reply.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        partial.write_text(json.dumps(sealed(reply._asdict(), request=request)), encoding="utf-8")
        partial.replace(path)

    def _path(self, request: str) -> Path:
        return self.folder / request[:2] / f"{request[2:]}.json"
