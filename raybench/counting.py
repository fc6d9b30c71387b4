"""Tokens: by which means they are counted, and by which names a request says how many it may get."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

MAX_TOKENS = ("max_new_tokens", "max_completion_tokens", "max_tokens")
"""The parameters that bound a completion, as the dialects call it; a request has at most one of them."""


def max_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that `parameters` ask for, by whichever name; None where they do not say."""
    return next((parameters[name] for name in MAX_TOKENS if name in parameters), None)


class Source(StrEnum):
    """By which means tokens were counted, best first."""

    SERVER = "server"
    TOKENIZER = "tokenizer"
    ESTIMATE = "estimate"


def estimated_tokens(words: int) -> int:
    """The tokens of so many words between white space, rounded up: four thirds, a rule of thumb for English."""
    return -(-words * 4 // 3)
