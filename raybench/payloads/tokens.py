"""How many tokens a text has: by the model's own tokenizer where there is one, else by an estimate that says so."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Protocol

from raybench.counting import Source, estimated_tokens
from raybench.errors import InputError


class Counter(Protocol):
    """Counts tokens and names the means by which it does."""

    @property
    def source(self) -> Source: ...

    def count(self, text: str) -> int:
        """Tokens of `text` as a prompt: with those that the model is given before it, such as BOS."""
        ...

    def count_completion(self, text: str) -> int:
        """Tokens of `text` as a completion: nothing stands before it."""
        ...


def counter(tokenizer_path: Path | None) -> Counter:
    """The counter of a `tokenizer.json`, or the estimate when there is none; InputError if it cannot be read."""
    return Estimator() if tokenizer_path is None else Tokenizer(tokenizer_path)


def estimate_tokens(text: str) -> int:
    """The tokens of a text by the number of its words."""
    return estimated_tokens(len(text.split()))


class Estimator:
    """Counts by `estimate_tokens`."""

    source: ClassVar[Source] = Source.ESTIMATE

    def count(self, text: str) -> int:
        return estimate_tokens(text)

    def count_completion(self, text: str) -> int:
        return estimate_tokens(text)


class Tokenizer:
    """Counts by a `tokenizer.json`; a text counted once is remembered, so five buckets of a file cost one count."""

    source: ClassVar[Source] = Source.TOKENIZER

    def __init__(self, path: Path) -> None:
        self._tokenizer = _load(path)
        self._prompts: dict[bytes, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_tokenizer": self._tokenizer, "_prompts": {}}

    def count(self, text: str) -> int:
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if (known := self._prompts.get(key)) is None:
            known = self._prompts[key] = self._count(text, special=True)
        return known

    def count_completion(self, text: str) -> int:
        return self._count(text, special=False)

    def _count(self, text: str, *, special: bool) -> int:
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return len(encoding)


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer as Loaded  # costs 30 ms that an estimate need not pay

    if not path.is_file():
        raise InputError("no such tokenizer", where=str(path), allowed="a tokenizer.json")
    try:
        tokenizer = Loaded.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"not a tokenizer: {reason}", where=str(path), allowed="a tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
