"""What goes out for a prompt: the body that an endpoint's dialect wants."""

import hashlib
from collections.abc import Mapping
from typing import Any

from raybench.client import dialects
from raybench.client.target import Target
from raybench.counting import MAX_TOKENS, max_tokens
from raybench.rows import Prompt, Request


def request(target: Target, parameters: Mapping[str, Any], prompt: Prompt) -> Request:
    """A prompt as the body that the endpoint's dialect wants."""
    if prompt.max_tokens is not None and target.dialect != "embeddings":
        name = next((name for name in MAX_TOKENS if name in parameters), MAX_TOKENS[0])
        parameters = {**parameters, name: prompt.max_tokens}
    body = dialects.body(target.dialect, prompt.text, parameters, target.streams)
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return Request(body, digest, prompt, max_tokens(parameters))
