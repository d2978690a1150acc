"""The prompts of language models: read from a file, and filled in for a dialogue."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from robustplug.api import Refused, Unreadable, read_bytes

from ..dialogues.scenarios import TOTAL
from ..protocol import Goal, Turn
from .replies import Message, Role

SCHEMA = 1
PLACES = ("pool", "values", "total")
_LARGEST = 2**16
_SELECTION = "<selection>"


@dataclass(frozen=True)
class Prompts:
    """Hold the prompts of an agent; `$pool`, `$values` and `$total` in them stand for those of a dialogue.

    Attributes:
        system: the rules, the goal, and how to answer.
        start: first message where the agent speaks first.
        ended: what the agent hears where the other side ends the dialogue.
        decide, decide_or_walk_away: question for the decision; the latter where no agreement is allowed.
    """

    system: str
    start: str
    ended: str
    decide: str
    decide_or_walk_away: str

    def to_speak(self, goal: Goal, dialogue: Sequence[Turn]) -> tuple[Message, ...]:
        """Return the chat that asks for the agent's next turn."""
        return self._chat(goal, dialogue, "" if dialogue else self.start)

    def to_decide(self, goal: Goal, dialogue: Sequence[Turn], walk_away: bool) -> tuple[Message, ...]:
        """Return the chat that asks for the agent's decision."""
        return self._chat(goal, dialogue, self.decide_or_walk_away if walk_away else self.decide)

    def _chat(self, goal: Goal, dialogue: Sequence[Turn], question: str) -> tuple[Message, ...]:
        known = _filling(goal)
        said: list[Message] = [Message("system", Template(self.system).substitute(known).strip())]

        def add(role: Role, text: str) -> None:
            # Many chat templates demand that the roles alternate.
            if said[-1].role == role:
                said[-1] = Message(role, f"{said[-1].text}\n{text}")
            else:
                said.append(Message(role, text))

        if dialogue and dialogue[0].mine:
            add("user", Template(self.start).substitute(known).strip())
        for turn in dialogue:
            if turn.mine:
                add("assistant", turn.text)
            else:
                add("user", self.ended.strip() if turn.text == _SELECTION else turn.text)
        if question:
            add("user", Template(question).substitute(known).strip())
        return tuple(said)


def _filling(goal: Goal) -> dict[str, str]:
    def listed(numbers: Mapping[str, int], one: str, many: str) -> str:
        parts = [f"{number} {one if number == 1 else many}".format(item) for item, number in numbers.items()]
        return ", ".join(parts)

    values = ", ".join(f"{item} {value}" for item, value in goal.values.items())
    return {"pool": listed(goal.counts, "{}", "{}s"), "values": values, "total": str(TOTAL)}


def read_prompts(path: str | None, default: str) -> Prompts:
    """Read a file of prompts.

    Args:
        path: the file; None for one of the package.
        default: name of the package's file.

    Raises:
        Refused: the file is missing, malformed or incomplete, or fills in what does not exist.
    """
    name = path or f"{default}.toml"
    try:
        if path is None:
            data = resources.files(__package__).joinpath("prompts", name).read_bytes()
        else:
            data = read_bytes(Path(path), _LARGEST)
        table: dict[str, Any] = tomllib.loads(data.decode())
    except FileNotFoundError:
        raise Refused(f"the file of prompts {name} does not exist") from None
    except Unreadable as error:
        raise Refused(f"the file of prompts {name} {error}") from error
    except ValueError as error:
        raise Refused(f"the file of prompts {name} is no TOML in UTF-8: {error}") from error
    names = Prompts.__annotations__.keys()
    if table.pop("schema", None) != SCHEMA or table.keys() != names:
        raise Refused(f"the file of prompts {name} must have schema = {SCHEMA} and {', '.join(names)}")
    for key, text in table.items():
        if not isinstance(text, str):
            raise Refused(f"{key} in the file of prompts {name} must be a text")
        _check_places(key, text, name)
    return Prompts(**table)


def _check_places(key: str, text: str, name: str) -> None:
    template = Template(text)
    if not template.is_valid():
        raise Refused(
            f"{key} in the file of prompts {name} has a $ that names nothing: write $$ for a dollar"
        )
    unknown = set(template.get_identifiers()) - set(PLACES)
    if unknown:
        known = ", ".join(f"${place}" for place in PLACES)
        raise Refused(f"{key} in the file of prompts {name} names ${min(unknown)}; there are {known}")


def as_texts(prompts: Prompts) -> dict[str, str]:
    """Return the prompts as plain values, to be stored with a result."""
    return asdict(prompts)


def as_lines(messages: Sequence[Message]) -> str:
    """Return a chat as lines, for models without a template for chats; the next line is the model's.

    The lines of the other side begin with "THEM:", those of the model with "YOU:", as in the published
    dialogues.
    """
    names: dict[Role, str] = {"system": "", "user": "THEM: ", "assistant": "YOU: "}
    lines = [names[message.role] + re.sub(r"\s+", " ", message.text) for message in messages]
    return "\n".join([*lines, "YOU:"])
