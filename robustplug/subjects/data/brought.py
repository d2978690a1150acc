"""From what you bring to arrays: pairs, data sets, loaders, tables of Hugging Face, streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .arrays import as_inputs, as_labels
from .pictures import picture_tensor, read_picture
from .spool import Spool, memory_limit

# Names by which the columns or arrays of inputs and labels are recognised.
USUAL = {
    "input": ("image", "img", "images", "pixel_values", "x", "input", "inputs", "features", "data"),
    "label": ("label", "labels", "fine_label", "y", "target", "targets", "class"),
}


class Arrays(NamedTuple):
    """Hold inputs and labels, and the names of the classes where the data state them."""

    x: Tensor
    y: Tensor
    class_names: tuple[str, ...] = ()


def read_arrays(data: Any, columns: Sequence[str] | None = None, name: str = "data") -> Arrays:
    """Read all samples of what somebody brings, once.

    Args:
        data: a pair (inputs, labels) of arrays; a torch Dataset of such samples; a DataLoader or another
            iterable of such batches, read once in its own order; a Hugging Face Dataset.
        columns: names of the input and the label column of a Hugging Face Dataset, or of mappings.
        name: name of the argument, for errors.

    Raises:
        TypeError: it is none of these.
        ValueError: its inputs or labels are not as `as_inputs` and `as_labels` want them, or it is empty.
    """
    if isinstance(data, DataLoader | IterableDataset):
        return _joined(data, columns, name)
    if is_hugging_face(data):
        return _from_hugging_face(data, columns, name)
    if isinstance(data, Dataset):
        return _from_samples(data, columns, name)
    if isinstance(data, tuple | list) and len(data) == 2 and _array(data[0]) and _array(data[1]):
        x = as_inputs(data[0], f"the inputs of {name}")
        return Arrays(x, as_labels(data[1], len(x), f"the labels of {name}"))
    if isinstance(data, Tensor | np.ndarray):
        raise TypeError(f"{name} is one array: give a pair ({name}, labels)")
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        return _joined(data, columns, name)
    raise TypeError(
        f"{name} is a {type(data).__name__}: give a pair (inputs, labels) of arrays, a torch Dataset, a "
        "DataLoader, a Hugging Face Dataset, or an iterable of batches (inputs, labels)"
    )


def is_hugging_face(data: Any) -> bool:
    """Return whether this is a Dataset of Hugging Face's `datasets`."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "column_names")


def of_texts(data: Any, columns: Sequence[str] | None = None) -> bool:
    """Return whether this is a data set of Hugging Face, or a mapping of its splits, whose inputs are texts.

    Args:
        data: what somebody brings.
        columns: names of the input and the label column; None for the usual names, or else for all columns.
    """
    first: Any = next(iter(data.values()), None) if isinstance(data, Mapping) else data
    if not is_hugging_face(first):
        return False
    known = {name.lower(): feature for name, feature in first.features.items()}
    names = columns[:1] if columns else [name for name in USUAL["input"] if name in known] or list(known)
    kinds = [str(getattr(known.get(name.lower()), "dtype", "")).lower() for name in names]
    return any("string" in kind for kind in kinds) and not any("image" in kind for kind in kinds)


def _array(value: Any) -> bool:
    """Return whether this is an array or nested sequences of numbers, and not a batch (inputs, labels)."""
    if isinstance(value, Tensor | np.ndarray):
        return True
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    batch = len(value) == 2 and all(isinstance(part, Tensor | np.ndarray) for part in value)
    return not batch and not any(isinstance(part, Mapping) for part in value[:1])


def pair_of(item: Any, columns: Sequence[str] | None, name: str) -> tuple[Any, Any]:
    """Return inputs and labels of a sample or a batch: a pair, or a mapping with columns.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(item, Mapping):
        inputs, labels = columns or (find_column(item, "input", name), find_column(item, "label", name))
        missing = [column for column in (inputs, labels) if column not in item]
        if missing:
            raise ValueError(f"{name} has no column {missing[0]!r}; it has {', '.join(map(repr, item))}")
        return item[inputs], item[labels]
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise ValueError(f"{name} gives a {type(item).__name__} where a pair (inputs, labels) is expected")


def find_column(
    known: Iterable[str],
    role: Literal["input", "label"],
    name: str,
    mend: str = "columns=(inputs, labels)",
) -> str:
    """Return the name of the column of inputs, or of labels, by the names that these usually have.

    Args:
        known: names of all columns; upper and lower case count as the same.
        role: what the column holds.
        name: name of the data, for errors.
        mend: how a column of another name is chosen, for errors.

    Raises:
        ValueError: no column has a usual name.
    """
    by_name = {each.lower(): each for each in reversed(list(known))}
    found = next((by_name[each] for each in USUAL[role] if each in by_name), None)
    if found is None:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{name} has the columns {listed}: say which holds the {role}s, {mend}")
    return found


def _joined(batches: Iterable[Any], columns: Sequence[str] | None, name: str) -> Arrays:
    inputs, labels = Spool(memory_limit()), []
    shape: tuple[int, ...] = ()
    for number, batch in enumerate(batches):
        first, second = pair_of(batch, columns, name)
        x = as_inputs(first, f"the inputs of batch {number} of {name}")
        labels.append(as_labels(second, len(x), f"the labels of batch {number} of {name}"))
        shape = shape or tuple(x.shape[1:])
        if tuple(x.shape[1:]) != shape:
            raise ValueError(
                f"{name}: batch {number} has inputs of shape {tuple(x.shape[1:])}, the first has {shape}"
            )
        inputs.add(x)
    if not labels:
        raise ValueError(f"{name} is empty; an iterator that was read before has nothing left")
    return Arrays(inputs.tensor(), torch.cat(labels))


def sample_input(x: Any, name: str) -> Tensor:
    """Return the input of one sample as a tensor: a tensor or array, or a picture of Pillow as (C, H, W).

    Raises:
        ValueError: it is a single number, or a picture that `read_picture` refuses.
    """
    if isinstance(x, Image.Image):
        return picture_tensor(read_picture(x, name=f"of {name}"))
    tensor = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    if not tensor.ndim:
        raise ValueError(f"{name} gives single numbers for inputs")
    return tensor


def samples_of(data: Any, columns: Sequence[str] | None, name: str) -> Iterator[tuple[Tensor, int]]:
    """Yield the input and the class of each sample of a data set with a length."""
    for number in range(len(data)):
        x, y = pair_of(data[number], columns, name)
        yield (
            sample_input(x, name),
            int(as_labels(torch.as_tensor(y)[None], 1, f"the label of sample {number}")[0]),
        )


def _from_samples(data: Any, columns: Sequence[str] | None, name: str) -> Arrays:
    names = tuple(map(str, getattr(data, "classes", ()) or ()))
    inputs, labels = Spool(memory_limit()), []
    first: tuple[tuple[int, ...], torch.dtype] | None = None
    for number, (x, y) in enumerate(samples_of(data, columns, name)):
        own = tuple(x.shape), x.dtype
        first = first or own
        if own != first:
            raise ValueError(
                f"{name}: sample {number} has the shape {own[0]} and the type {own[1]}, the first {first[0]} "
                f"and {first[1]}: give the data set a transform that brings all to one size and type"
            )
        inputs.add(x[None])
        labels.append(y)
    if not labels:
        raise ValueError(f"{name} is empty")
    x = as_inputs(inputs.tensor(), f"the inputs of {name}")
    return Arrays(x, torch.tensor(labels), names if len(names) > max(labels) else ())


def _from_hugging_face(data: Any, columns: Sequence[str] | None, name: str) -> Arrays:
    known = list(data.column_names)
    if any(isinstance(column, list) for column in known) or isinstance(data, Mapping):
        raise ValueError(f"{name} holds several splits: give one of them, for example {name}['test']")
    inputs, labels = columns or (find_column(known, "input", name), find_column(known, "label", name))
    feature = getattr(data, "features", {}).get(labels)
    found = _from_samples(data.select_columns([inputs, labels]), (inputs, labels), name)
    names = tuple(getattr(feature, "names", None) or ())
    return found._replace(class_names=names)
