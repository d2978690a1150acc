"""Sequence classifiers of transformers as modules from texts to logits, and their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustplug.api import TaskInfo, Weights, check_model_folder, did_you_mean, is_folder

from ..data.passages import texts
from .words import PAD, Numbers, Shifted

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
    """Build a sequence classifier of transformers with fresh weights, for the task's classes.

    The classes of a folder are matched with the task's by their names, if these are the same, and otherwise
    by their order.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the task is not the classification of text, or model or tokenizer cannot be had.
    """
    transformers = _library()
    vocabulary = getattr(info, "vocabulary", None)
    if vocabulary is None or info.classes is None:
        raise ValueError(f'{options.name} classifies texts: it needs the task "text"')
    check_model_folder(options.name)
    if _is_type(options.name):
        sizes = {"vocab_size": len(Numbers(vocabulary)), "pad_token_id": PAD, "num_labels": info.classes}
        config = transformers.AutoConfig.for_model(options.name, **{**sizes, **options.config})
        tokenizer, order = None, list(range(info.classes))
    else:
        try:
            config = transformers.AutoConfig.from_pretrained(
                options.name, **_where(options.name), **options.config
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(options.name, **_where(options.name))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{options.name} is neither a type of model nor a folder or model of the Hub that can be had"
                f"{_hint(options.name)}: {_first_line(error)}"
            ) from error
        if config.num_labels != info.classes:
            raise ValueError(
                f"{options.name} tells {config.num_labels} classes apart, and the task has {info.classes}: "
                f"{', '.join(info.class_names)}; for a new classifier on top, set model.config = "
                f'{{ num_labels = {info.classes} }} and model.head = "new"'
            )
        order = _matched(config.id2label or {}, info.class_names)
    try:
        network = transformers.AutoModelForSequenceClassification.from_config(config).float()
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{options.name} is no sequence classifier: {_first_line(error)}") from error
    return TextClassifier(network, tokenizer, vocabulary, order).train()


def _matched(names: dict[int, str], wanted: tuple[str, ...]) -> list[int]:
    """Return the model's class number for each class of the task: by name if the names are the same."""
    known = {str(name).casefold(): int(number) for number, name in names.items()}
    if sorted(known) == sorted(name.casefold() for name in wanted):
        return [known[name.casefold()] for name in wanted]
    return list(range(len(wanted)))


def trained_weights(options: HuggingFaceTextOptions, name: str | None, *, info: TaskInfo) -> Weights | None:
    """Return the state dict of a folder or of the Hub; only safetensors are read.

    Args:
        options: options of the model.
        name: None, or "DEFAULT" for the same: the weights of the folder or the Hub, which a type has not.
        info: description of the task.

    Raises:
        ImportError: transformers is not installed.
        ValueError: there are no other weights than those.
        OSError: they cannot be read or downloaded.
    """
    if name not in (None, "DEFAULT"):
        raise ValueError(f'there is no file "{name}"; leave `from` out for the weights of {options.name}')
    if _is_type(options.name):
        if name is not None:
            raise ValueError(
                f'"{options.name}" is a type of model, without weights: name a folder or a model of the Hub'
            )
        return None
    check_model_folder(options.name)
    found = _library().AutoModelForSequenceClassification.from_pretrained(
        options.name, use_safetensors=True, **_where(options.name)
    )
    state = {f"model.{key}": value for key, value in found.float().state_dict().items()}
    return Weights(state, options.name)


def _is_type(name: str) -> bool:
    return name in _library().CONFIG_MAPPING and not is_folder(name)


def _hint(name: str) -> str:
    close = did_you_mean(name, _library().CONFIG_MAPPING)
    return f' (did you mean "{close}"?)' if close else ""


def _where(name: str) -> dict[str, Any]:
    return {"local_files_only": is_folder(name), "trust_remote_code": False}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
