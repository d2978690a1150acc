"""Sequence classifiers of transformers as modules from texts to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import TaskInfo, check_model_folder, did_you_mean, is_file

from ..data.passages import texts
from ..words import PAD, Numbers, Shifted

if TYPE_CHECKING:
    from ..options import HuggingFaceTextOptions

# Tokenizers that state no limit have a huge one.
_SANE = 1_000_000


class TextClassifier(nn.Module):
    """Return the logits (N, K) of a sequence classifier for texts.

    A text is tokenised as a whole, as it stands: what an attack wrote is read as text, whatever tokens it
    becomes. Texts beyond the model's length are cut there.

    Args:
        model: a sequence classifier of transformers.
        tokenizer: its tokenizer; None to read the words of the vocabulary.
        vocabulary: the task's words, for a model without a tokenizer.
        order: number of the model's class for each class of the task.
    """

    order: Tensor

    def __init__(self, model: Any, tokenizer: Any, vocabulary: tuple[str, ...], order: list[int]) -> None:
        super().__init__()
        self.model = model
        self._tokenizer, self._numbers = tokenizer, Numbers(vocabulary)
        limits = [getattr(tokenizer, "model_max_length", _SANE)]
        # RoBERTa and its relatives count positions from 2.
        limits.append(
            (getattr(model.config, "max_position_embeddings", None) or _SANE) - 2 * (tokenizer is not None)
        )
        self._longest = min(limits)
        self.register_buffer("order", torch.tensor(order), persistent=False)

    @property
    def width(self) -> int:
        """Return the size of a word embedding."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def _read(self, x: Tensor) -> dict[str, Tensor]:
        if self._tokenizer is None:
            rows = self._numbers.rows(texts(x))[:, : self._longest]
            # A text without words is one unknown word: attention needs something to look at.
            rows[:, 0] = rows[:, 0].clamp_min(1)
            found = {"input_ids": rows, "attention_mask": (rows != PAD).long()}
        else:
            found = dict(
                self._tokenizer(
                    texts(x), padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
                )
            )
        return {name: values.to(self.order.device) for name, values in found.items()}

    def there(self, x: Tensor) -> Tensor:
        """Return which places hold a token, special ones included, bool (N, S)."""
        return self._read(x)["attention_mask"].bool()

    def forward(self, x: Tensor | Shifted) -> Tensor:
        """Return the logits of rows of code points (N, C), or of a Shifted."""
        if isinstance(x, Shifted):
            read = self._read(x.x)
            vectors = self.model.get_input_embeddings()(read.pop("input_ids"))
            read["inputs_embeds"] = vectors + x.shift * read["attention_mask"][..., None]
        else:
            read = self._read(x)
        logits: Tensor = self.model(**read).logits
        return logits[:, self.order]


# Every plugin names its own library and extra, so these lines repeat on purpose.
def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError('this needs transformers: pip install "robustplug[text]"') from error
    return transformers


def text_classifier(options: HuggingFaceTextOptions, *, info: TaskInfo) -> TextClassifier:
    """Build a sequence classifier: with the weights of a folder, or a new one that reads the task's words.

    The classes of a folder are matched with the task's by their names, if these are the same, and otherwise
    by their order. Nothing is downloaded or unpickled, and no code of the folder runs.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the task is not the classification of text, or the folder holds no such model.
    """
    transformers = _library()
    vocabulary = getattr(info, "vocabulary", None)
    if vocabulary is None or info.classes is None:
        raise ValueError('this model classifies texts: it needs the task "text"')
    if options.folder is not None:
        return _of_folder(options, options.folder, info)
    sizes = {"vocab_size": len(Numbers(vocabulary)), "pad_token_id": PAD, "num_labels": info.classes}
    try:
        config = transformers.AutoConfig.for_model(options.kind, **{**sizes, **options.config})
        network = transformers.AutoModelForSequenceClassification.from_config(config).float()
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        unknown = options.kind not in transformers.CONFIG_MAPPING
        close = did_you_mean(options.kind, transformers.CONFIG_MAPPING) if unknown else None
        hint = f' (did you mean "{close}"?)' if close else ""
        raise ValueError(
            f"kind: {options.kind} is no sequence classifier{hint}: {_first_line(error)}"
        ) from error
    return TextClassifier(network, None, vocabulary, list(range(info.classes))).train()


def _of_folder(options: HuggingFaceTextOptions, folder: str, info: TaskInfo) -> TextClassifier:
    transformers, vocabulary = _library(), getattr(info, "vocabulary", ())
    if not is_file(Path(folder) / "config.json"):
        raise ValueError(f"{folder} holds no Hugging Face model: config.json is missing")
    check_model_folder(folder)
    where = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **where)
        config = transformers.AutoConfig.from_pretrained(folder, **where)
        if options.new_classifier:
            config.num_labels = info.classes
        _check_classes(config, folder, info)
        network, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=options.new_classifier,
            **where,
        )
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{folder} holds no readable classifier in safetensors with its tokenizer: {_first_line(error)}"
        ) from error
    if loading["missing_keys"] and not options.new_classifier:
        raise ValueError(
            f"{folder} lacks weights of a classifier, such as {min(loading['missing_keys'])}: to train a new "
            "one, set model.new_classifier = true"
        )
    names = {} if options.new_classifier else config.id2label
    # Weights stored in half precision would otherwise stay in half precision.
    return TextClassifier(network.float(), tokenizer, vocabulary, _matched(names, info.class_names)).train()


def _check_classes(config: Any, folder: str, info: TaskInfo) -> None:
    """Refuse a folder with another number of classes.

    Raises:
        ValueError: it has one.
    """
    if config.num_labels != info.classes:
        raise ValueError(
            f"{folder} tells {config.num_labels} classes apart, and the task has {info.classes}: "
            f"{', '.join(info.class_names)}; to train a new classifier, set model.new_classifier = true"
        )


def _matched(names: Mapping[int, str], wanted: Sequence[str]) -> list[int]:
    """Return the model's class number for each class of the task: by name if the names are the same."""
    known = {str(name).casefold(): int(number) for number, name in names.items()}
    if sorted(known) == sorted(name.casefold() for name in wanted):
        return [known[name.casefold()] for name in wanted]
    return list(range(len(wanted)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
