"""Which plugins may be asked to observe a run."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RunError
from ..plugin.host import host
from ..plugin.registry import did_you_mean


def check_observers(names: Sequence[str]) -> None:
    """Refuse names of observers that there are not; one that does not work is told by the run itself.

    Raises:
        RunError: naming all of them, and those that there are.
    """
    known = host().observers()
    broken = {report.name: report.problem for report in host().reports if report.status != "loaded"}
    problems = []
    for name in names:
        if name in known:
            continue
        close = did_you_mean(name, known)
        hint = f' Did you mean "{close}"?' if close else ""
        if name in broken:
            hint = f" The plugin of this name is not loaded: {broken[name] or 'it is not allowed'}"
        problems.append(f'there is no observer "{name}".{hint} Installed: {", ".join(known) or "none"}.')
    if problems:
        raise RunError("\n".join(problems))
