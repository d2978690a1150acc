"""Any causal language model of transformers, from a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustplug.api import Refused, check_model_folder, is_file, is_folder, stream

from ..agents.voice import draw
from .prompts import as_lines
from .replies import Ledger, Message, Reply, Request

if TYPE_CHECKING:
    from .options import CausalLmOptions

INSTALL = 'this needs transformers: pip install "robustplug[lm]"'
_PARTS = (".safetensors", ".json", ".jinja", ".model", ".txt")


class CausalLm:
    """Reply with a causal language model.

    A reply depends on its own request and seed alone, not on the others of a batch (but for rounding). A
    model whose tokenizer has a template for chats gets messages; any other gets lines, and replies with one.

    Args:
        options: options of the component.

    Raises:
        ImportError: transformers is not installed.
        Refused: the folder holds no causal language model in safetensors, or no tokenizer.
    """

    def __init__(self, options: CausalLmOptions) -> None:
        self.options, self.ledger = options, Ledger(options.max_queries)
        self._digest = _digest_of(options.folder)
        self._model, self._tokenizer = _load(options.folder)
        self._chats = bool(getattr(self._tokenizer, "chat_template", None))
        config = self._model.generation_config
        ends = config.eos_token_id if config.eos_token_id is not None else self._tokenizer.eos_token_id
        self._ends: list[int] = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self._pad = next(
            (number for number in (self._tokenizer.pad_token_id, *self._ends) if number is not None), 0
        )

    def facts(self) -> Mapping[str, Any]:
        """Return the digest of the folder, and how the model is asked."""
        return {"sha256": self._digest, "asked_in": "messages" if self._chats else "lines"}

    def reply(self, requests: Sequence[Request], device: torch.device) -> list[Reply]:
        """Return a reply to each request, in batches of similar lengths.

        Raises:
            Refused: a dialogue is too long for the model, or the bound on requests is spent.
        """
        self._model.to(device)
        tokens = [self._tokens(request.messages) for request in requests]
        order = sorted(range(len(requests)), key=lambda at: len(tokens[at]))
        found: dict[int, Reply] = {}
        for start in range(0, len(order), self.options.batch):
            part = order[start : start + self.options.batch]
            for _ in part:
                self.ledger.spend()
            replies = self._generated([tokens[at] for at in part], [requests[at] for at in part], device)
            found |= dict(zip(part, replies, strict=True))
        return [found[at] for at in range(len(requests))]

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        tokens = self._tokenizer(self._rendered(messages), add_special_tokens=not self._chats).input_ids
        room = getattr(self._model.config, "max_position_embeddings", None)
        if room is not None and len(tokens) + self.options.tokens > room:
            raise Refused(
                f"a dialogue of {len(tokens)} tokens leaves no room for a reply of {self.options.tokens}: "
                f"the model has {room} positions; lower its tokens, or the turns and words of the rules"
            )
        return list(tokens)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if not self._chats:
            return as_lines(messages)
        from jinja2 import TemplateError

        def filled(chat: Sequence[Message]) -> str:
            listed = [{"role": message.role, "content": message.text} for message in chat]
            text: str = self._tokenizer.apply_chat_template(
                listed, tokenize=False, add_generation_prompt=True
            )
            return text

        try:
            return filled(messages)
        except TemplateError:
            # Some templates have no system message: it opens the first message instead.
            system, first, *rest = messages
            try:
                return filled([Message("user", f"{system.text}\n\n{first.text}"), *rest])
            except TemplateError as error:
                raise Refused(f"the chat template of {self.options.folder} fails: {error}") from error

    @torch.no_grad()
    def _generated(
        self, tokens: Sequence[Sequence[int]], requests: Sequence[Request], device: torch.device
    ) -> list[Reply]:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        width = max(map(len, tokens))
        rows = [[self._pad] * (width - len(row)) + list(row) for row in tokens]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in tokens]
        config: Any = GenerationConfig
        written = self._model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=config(
                do_sample=False,
                max_new_tokens=self.options.tokens,
                pad_token_id=self._pad,
                eos_token_id=self._ends or None,
            ),
            logits_processor=LogitsProcessorList([_Drawn(requests, width, self.options.tokens, device)]),
            stopping_criteria=StoppingCriteriaList(
                [] if self._chats else [_AtLineEnd(self._tokenizer, width)]
            ),
        )[:, width:].tolist()
        return [self._read(len(asked), row) for asked, row in zip(tokens, written, strict=True)]

    def _read(self, asked: int, written: Sequence[int]) -> Reply:
        """Return the reply in generated tokens, which padding or the tokens after a line's end may follow."""
        end = next((place for place, token in enumerate(written) if token in self._ends), None)
        text: str = self._tokenizer.decode(written[:end], skip_special_tokens=True)
        whole = end is not None
        count = len(written) if end is None else end + 1
        if not self._chats:
            text, line_end, _ = text.lstrip().partition("\n")
            whole = whole or bool(line_end)
        return Reply(text, whole, asked, count)


class _Drawn:
    """Leave, of all next tokens, the one that is drawn by the row's own random number."""

    def __init__(self, requests: Sequence[Request], width: int, most: int, device: torch.device) -> None:
        self.width = width
        self.cold = torch.tensor([request.temperature == 0 for request in requests], device=device)
        warm = [request.temperature or 1.0 for request in requests]
        self.temperatures = torch.tensor(warm, dtype=torch.float64, device=device)
        rows = [torch.rand(most, generator=stream(request.seed, "reply")) for request in requests]
        self.noise = torch.stack(rows).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores that are finite for one token of each row."""
        place = input_ids.shape[1] - self.width
        drawn = draw(scores.double() / self.temperatures[:, None], self.noise[:, place], 1.0)
        chosen = torch.where(self.cold, scores.argmax(1), drawn)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


class _AtLineEnd:
    """Stop a row after a line that is not empty."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        self.tokenizer, self.width = tokenizer, width

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows are done, bool (N,)."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.width :], skip_special_tokens=True)
        return torch.tensor(["\n" in text.lstrip() for text in texts], device=input_ids.device)


def _load(folder: str) -> tuple[Any, Any]:
    """Load model and tokenizer of a local folder, without downloading, unpickling or running any code."""
    try:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    except ImportError as error:
        raise ImportError(INSTALL) from error
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        check_model_folder(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refused(f"{folder} holds no readable causal language model in safetensors: {first}") from error
    # What the folder sets for generation, such as penalties, would change the distribution.
    ends = model.generation_config.eos_token_id
    configured: Any = GenerationConfig
    model.generation_config = configured(eos_token_id=ends)
    return model.eval().requires_grad_(False), tokenizer


def _digest_of(folder: str) -> str:
    """Return the SHA-256 of the files of a model."""
    if not is_folder(folder) or not is_file(Path(folder) / "config.json"):
        raise Refused(f"{folder} is no folder of a language model: config.json is missing")
    found = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix in _PARTS and is_file(path):
            with path.open("rb") as file:
                found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()
