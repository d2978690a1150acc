"""Classification of text as a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from robustplug.api import (
    Batch,
    Feed,
    Quantity,
    Split,
    TaskInfo,
    TextRecord,
    View,
    classification_score,
    index_batches,
    mark_changes,
    to_device,
    word_spans,
    words_changed,
)

from ..words import tokens
from .examples import read_examples
from .passages import Passage, fixing, room, texts, written

if TYPE_CHECKING:
    from ..options import TextOptions


@dataclass(frozen=True)
class TextInfo(TaskInfo):
    """Describe a task of texts to models and attacks.

    Attributes:
        vocabulary: the most frequent words and punctuation marks of the training texts, in lower case.
    """

    vocabulary: tuple[str, ...] = ()


class TextTask:
    """Serve texts as rows of code points x, int32 (N, C), and their classes y, int64 (N,).

    C is the same for all samples of a split; see `passages`. The words of the class names are marked as
    fixed, unless the options say otherwise.

    Args:
        options: options of the component.

    Raises:
        DataMissing, BrokenData, ValueError: as for `read_examples`.
    """

    default_model = "word-cnn"
    quantities = (
        Quantity("success %", better="lower", share=True),
        Quantity("words changed %", better="higher"),
        Quantity("queries", better="higher"),
    )

    def __init__(self, options: TextOptions) -> None:
        found = read_examples(options)
        names = found.class_names
        kept = {word for name in names for word in Passage(name).words} - ENGLISH_STOP_WORDS
        self._passages: dict[Split, list[Passage]] = {}
        self._labels: dict[Split, Tensor] = {}
        cut = 0
        for split, members in found.texts.items():
            short = [shortened(text, options.longest) for text in members]
            cut += sum(one != other for one, other in zip(short, members, strict=True))
            fixed = kept if options.keep_labels else ()
            self._passages[split] = [fixing(text, fixed) for text in short]
            self._labels[split] = torch.tensor(found.labels[split])
        self._width = {split: room(len(p.text) for p in own) for split, own in self._passages.items()}
        counts = Counter(token for passage in self._passages["train"] for token in tokens(passage.text))
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        self.notes = (f"{cut} texts were cut to {options.longest} words (task.longest)",) if cut else ()
        self.info = TextInfo(
            sizes={split: len(own) for split, own in self._passages.items()},
            classes=len(names),
            class_names=names,
            vocabulary=tuple(ranked[: options.vocabulary]),
        )

    def batches(self, split: Split, feed: Feed) -> Iterator[Batch]:
        """Yield the batches of one epoch of a split, on `feed.device`; see `index_batches`."""
        labels = self._labels[split]
        for index in index_batches(len(labels), feed):
            x = written([self._passages[split][row] for row in index.tolist()], self._width[split])
            x, y, rows = (to_device(part, feed.device) for part in (x, labels[index], index))
            yield Batch(x, y, rows)

    def labels(self, split: Split) -> Tensor:
        """Return the class of each sample of a split, int64 (n,)."""
        return self._labels[split]

    def score(self, view: View, output: Tensor) -> Tensor:
        """Return for each text whether the largest output is at its class, bool (N,)."""
        return classification_score(view, output)

    def measure(self, view: View, output: Any) -> Mapping[str, Tensor]:
        """Measure attacks: success, and words changed of the texts that they broke, in per cent."""
        if view.role == "clean":
            return {}
        broken = ~self.score(view, output)
        pairs = zip(texts(view.origin), texts(view.x), strict=True)
        shares = [100 * words_changed(before, after) / max(1, len(before.split())) for before, after in pairs]
        changed = torch.tensor(shares, dtype=torch.float64, device=broken.device)
        return {
            "success %": 100.0 * broken.double(),
            "words changed %": changed.masked_fill(~broken, torch.nan),
        }

    def records(self, view: View, output: Any) -> Sequence[TextRecord]:
        """Return a record for each attacked text; the score is the probability of all other classes."""
        if view.role == "clean":
            return []
        names, said = self.info.class_names, output.argmax(1).tolist()
        labels = view.y if view.y.dim() == 1 else view.y.argmax(1)
        after = 1 - output.double().softmax(1).gather(1, labels[:, None])[:, 0]
        before = view.info.get("_score", torch.full_like(after, torch.nan))
        queries = view.info["queries"].tolist() if "queries" in view.info else [None] * len(view)
        rows = zip(
            texts(view.origin),
            texts(view.x),
            before.tolist(),
            after.tolist(),
            labels.tolist(),
            said,
            queries,
            strict=True,
        )
        return [
            TextRecord(
                one,
                other,
                low,
                high,
                # Attacks run on texts that are classified correctly.
                names[label],
                names[number],
                names[label],
                None if asked is None else int(asked),
                "Failed" if number == label else "Successful",
            )
            for one, other, low, high, label, number, asked in rows
        ]

    def tell(self, view: View, output: Any) -> Sequence[str]:
        """Show each text before and after the attack, with the changed words marked, and the classes."""
        names, said = self.info.class_names, output.argmax(1).tolist()
        labels = (view.y if view.y.dim() == 1 else view.y.argmax(1)).tolist()
        found = []
        for before, after, label, number in zip(texts(view.origin), texts(view.x), labels, said, strict=True):
            one, other = mark_changes(before, after)
            lines = [("text", one), *([("attacked", other)] if before != after else [])]
            lines += [("class", names[label]), ("predicted", names[number])]
            found.append("\n".join(f"  {name:9}  {text}" for name, text in lines))
        return found


def shortened(text: str, words: int) -> str:
    """Return the text up to the end of its word of that number."""
    spans = word_spans(text)
    return text if len(spans) <= words else text[: spans[words - 1][1]]
