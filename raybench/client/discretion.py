"""Secrets taken out of what a server says: AWS quotes all that was signed where a signature is wrong."""

from collections.abc import Iterable

HIDDEN = "(hidden)"
TELLING_CHARS = 8
"""A secret's first characters; a text that was cut may end with so much of one, or with more."""


def without(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets, and without the beginning of one at its end."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
        at = text.find(secret[:TELLING_CHARS], max(0, len(text) - len(secret)))
        while at >= 0 and not secret.startswith(text[at:]):
            at = text.find(secret[:TELLING_CHARS], at + 1)
        if at >= 0 and len(secret) > TELLING_CHARS:
            text = text[:at] + HIDDEN
    return text
