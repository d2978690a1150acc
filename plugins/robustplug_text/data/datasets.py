"""Data sets of Hugging Face with a column of texts and one of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tables import columns, refuse, wrong

if TYPE_CHECKING:
    from ..options import TextOptions


def pairs(split: Any, name: str, options: TextOptions) -> list[tuple[str, str]]:
    """Return the texts and the names of their classes.

    Raises:
        BrokenData: rows cannot be used; the message lists the first 20.
        ValueError: a column does not exist.
    """
    source = f"the split {name} of {options.data}"
    names = list(split.column_names)
    text, label = (names[place] for place in columns(names, source, options))
    classes = getattr(split.features[label], "names", None)
    problems, found = [], []
    for row, (said, number) in enumerate(zip(split[text], split[label], strict=True)):
        # Test splits of benchmarks without labels have -1.
        hidden = classes is not None and not 0 <= int(number) < len(classes)
        why = "the label is missing" if hidden else wrong(said, number)
        if why:
            problems.append(f"row {row}: {why}")
        else:
            found.append((said, str(classes[int(number)] if classes is not None else number)))
    refuse(problems, source)
    return found
