"""A base model's own tokenizer, and what the bytes of a text alone tell of its tokens."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer, pre_tokenizers

from tokenyard.gateway.counting.chat_template import ChatTemplate

# Nothing of a text is lost in these, so that the tokens together are as long as the text.
_KEEPING = frozenset({"ByteLevel", "Metaspace", "Digits", "Prepend", "Sequence"})
# Canonical composition makes of three Hangul parts, nine bytes, one syllable of three; nothing shrinks more.
_COMPOSES, _COMPOSED_TO = "NFC", 3


class _Model(msgspec.Struct):
    type: str = ""  # older files do not say it
    byte_fallback: bool = False


class _AddedToken(msgspec.Struct):
    """One that `lstrip` or `rstrip` takes the white space around it along, however much there is."""

    lstrip: bool = False
    rstrip: bool = False


class _File(msgspec.Struct):
    """What `tokenizer.json` says of how texts are cut; the vocabulary is passed over."""

    model: _Model
    normalizer: Any = None
    pre_tokenizer: Any = None
    added_tokens: Sequence[_AddedToken] = ()


class ModelTokenizer:
    """Counting does not hold the interpreter's lock; reading the file does, for some tenths of a second."""

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        self._tokenizer = Tokenizer.from_file(str(file))
        # Some files cut or fill up every text; the engine does neither.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most_bytes = _most_bytes(self._tokenizer, msgspec.json.decode(file.read_bytes(), type=_File))

    def count(self, texts: Sequence[str]) -> int:
        # One text at a time, because the library spreads several over all cores, which others need too. Only its batch
        # calls release the interpreter's lock.
        return sum(len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]) for text in texts)

    @cached_property
    def template(self) -> ChatTemplate:
        """The model's chat template; one without raises `NotRendered`."""
        return ChatTemplate.of_model(self._folder)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def strings(self, ids: Sequence[int]) -> list[str | None]:
        """Return tokens as the vocabulary writes them, None for one that is not in it."""
        return [self._tokenizer.id_to_token(one) for one in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens; an id that is not in the vocabulary raises `LookupError`."""
        distinct = list(set(ids))
        if None in (known := self.strings(distinct)):
            raise LookupError(f"token {distinct[known.index(None)]} is not in the model's vocabulary.")
        (text,) = self._tokenizer.decode_batch([list(ids)], skip_special_tokens=False)
        return str(text)

    def fewest(self, texts: Sequence[str]) -> int:
        """Return a number that `count` is never below, for the price of looking at the lengths."""
        if self._most_bytes is None:
            return 0
        return -(-sum(len(text.encode()) for text in texts) // self._most_bytes)


def _most_bytes(tokenizer: Tokenizer, file: _File) -> int | None:
    """Return how many bytes of text one token can stand for at most; None where there is no such number."""
    steps = [*_steps(file.normalizer), *_steps(file.pre_tokenizer)]
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    # A model that knows not every byte makes one token of any number that it does not know.
    knows_all = file.model.type == "BPE" and (byte_level or file.model.byte_fallback)
    absorbing = any(token.lstrip or token.rstrip for token in file.added_tokens)
    if not knows_all or absorbing or not all(map(_keeps, steps)):
        return None
    composed = _COMPOSED_TO if any(step["type"] == _COMPOSES for step in steps) else 1
    letters = frozenset(pre_tokenizers.ByteLevel.alphabet()) if byte_level else frozenset()
    tokens = tokenizer.get_vocab(with_added_tokens=True)
    return composed * max(len(token) if letters.issuperset(token) else len(token.encode()) for token in tokens)


def _steps(step: Any) -> Iterator[dict[str, Any]]:
    if step is None:
        return
    yield step
    for inner in (*step.get("pretokenizers", ()), *step.get("normalizers", ())):
        yield from _steps(inner)


def _keeps(step: dict[str, Any]) -> bool:
    if step["type"] == "Split":
        return step.get("behavior") != "Removed"
    if step["type"] == "Replace":  # as models do that write spaces so
        return step.get("pattern") == {"String": " "} and step.get("content") == "\u2581"
    return step["type"] in _KEEPING or step["type"] == _COMPOSES
