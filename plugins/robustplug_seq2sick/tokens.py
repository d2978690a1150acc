"""Build vocabularies: of words, of sentencepiece pieces, or of a Hugging Face tokenizer."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .text.data import Pair
from .text.words import MARKS, SPECIALS, Words, word_vocabulary

if TYPE_CHECKING:
    from .options import VocabularyOptions


def vocabularies(options: VocabularyOptions, pairs: Sequence[Pair]) -> tuple[Words, Words]:
    """Return the vocabularies of source and target.

    Args:
        options: options of the task.
        pairs: sentence pairs of the training text.

    Raises:
        ImportError: the vocabulary needs robustplug[text], which is not installed.
        ValueError: sentencepiece cannot make this many pieces from the text.
    """
    kind = getattr(options, "vocabulary", "words")
    sides = [[pair.source for pair in pairs], [pair.target for pair in pairs]]
    if kind == "sentencepiece":
        source, target = (sentence_pieces(lines, getattr(options, "pieces", 0)) for lines in sides)
        return source, target
    if kind == "tokenizer":
        return tokenizer_words(str(getattr(options, "tokenizer", "")))
    source, target = (
        word_vocabulary((line.split() for line in lines), options.unknown_below) for lines in sides
    )
    return source, target


def sentence_pieces(lines: Sequence[str], size: int) -> Words:
    """Train a vocabulary of pieces, deterministic in the text (Kudo & Richardson 2018, arXiv:1808.06226).

    Raises:
        ImportError: sentencepiece is not installed.
        ValueError: sentencepiece cannot make this many pieces from the text.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError('vocabulary = "sentencepiece" needs: pip install "robustplug[text]"') from error
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            num_threads=1,
            minloglevel=2,
            character_coverage=1.0,
        )
    except RuntimeError as error:
        # The prefix is a location in the source code of sentencepiece.
        said = str(error).splitlines()[0].rpartition("] ")[2]
        raise ValueError(f"sentencepiece: {said}; change task.pieces") from error
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    own = [piece for number, piece in enumerate(pieces) if not _special(processor, number)]

    def split(text: str) -> list[str]:
        found: list[str] = processor.encode(text, out_type=str)
        return found

    return Words((*SPECIALS, *own), True, split, _without_marks)


def _without_marks(pieces: Sequence[str]) -> str:
    return "".join(pieces).replace(MARKS[0], " ").strip()


def _special(processor: Any, number: int) -> bool:
    return bool(processor.is_control(number) or processor.is_unknown(number))


def tokenizer_words(folder: str) -> tuple[Words, Words]:
    """Return the vocabularies of a Hugging Face tokenizer in a local folder; nothing is downloaded.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder holds no tokenizer.
    """
    from .models.folders import load_tokenizer

    tokenizer = load_tokenizer(folder)
    known: dict[str, int] = tokenizer.get_vocab()
    tokens = [token for token, _ in sorted(known.items(), key=lambda item: item[1])]
    own = tuple(token for token in tokens if token not in SPECIALS)
    all_words = (*SPECIALS, *own)
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    forbidden = frozenset(number for number, token in enumerate(all_words) if token in special)

    def split(text: str, side: str) -> list[str]:
        numbers = tokenizer(**{side: text}, add_special_tokens=False).input_ids
        found: list[str] = tokenizer.convert_ids_to_tokens(numbers)
        return found

    def join(tokens: Sequence[str]) -> str:
        found: str = tokenizer.convert_tokens_to_string(list(tokens))
        return found.strip()

    # Tokenizers such as Marian's split the two languages differently.
    splits = (functools.partial(split, side=side) for side in ("text", "text_target"))
    pieces = any(token.startswith(MARKS) for token in all_words)
    source, target = (Words(all_words, pieces, own_split, join, forbidden) for own_split in splits)
    return source, target
