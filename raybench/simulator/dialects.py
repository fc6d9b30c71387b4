"""How containers talk: what a body asks for, and the bytes of the reply, whole or token by token.

TGI answers `inputs` with a list, or SSE records without a space after `data:`; LMI with an object, or JSON lines of
which the last has no newline; JumpStart's older Llama containers stream lists of words and count nothing; OpenAI chat
has `choices` and `usage`, or SSE that ends with `[DONE]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

_TEXT = (
    " the model reads a prompt and answers with words that mean nothing at all but have the right number naïve"
    " tokens arrive one by one like beads on a string until enough have come 東京 and then it stops quietly"
)
WORDS = tuple(f" {word}" for word in _TEXT.split())


class UnprocessableError(Exception):
    """The container cannot read the body: its own 422."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one body asks for; `max_tokens` None leaves the length to the model. `stream` says that the reply may be
    streamed, which the route then decides: JumpStart's older containers do not ask the body."""

    dialect: str
    prompt: str
    max_tokens: int | None
    stream: bool
    details: bool = False
    echo: bool = False
    usage: bool = False
    model: str = ""


def ask_of(body: bytes, dialect: str, echo: bool = False) -> Ask:
    """The meaning of a body: `messages` is OpenAI chat, `inputs` the endpoint's own `dialect`.

    `echo` puts the prompt before every completion, asked for (`return_full_text`) or not.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnprocessableError(f"Failed to parse the request body as JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UnprocessableError("Failed to deserialize the JSON body: expected an object")
    if "messages" in fields:
        return _chat(fields)
    if dialect == "openai":
        raise UnprocessableError("messages: field required")
    prompt, parameters = fields.get("inputs"), fields.get("parameters") or {}
    if not isinstance(prompt, str) or not isinstance(parameters, dict):
        raise UnprocessableError("Failed to deserialize the JSON body into the target type: missing field `inputs`")
    return Ask(
        dialect,
        prompt,
        _positive(parameters.get("max_new_tokens"), "max_new_tokens"),
        stream=fields.get("stream") is True or dialect == "jumpstart",
        details=parameters.get("details") is True,
        echo=echo or parameters.get("return_full_text") is True,
    )


def _chat(fields: Mapping[str, Any]) -> Ask:
    try:
        texts = [_content(message["content"]) for message in fields["messages"]]
    except (TypeError, KeyError):
        raise UnprocessableError("messages: each needs a role and a content") from None
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    options = fields.get("stream_options") or {}
    return Ask(
        "openai",
        "\n".join(texts),
        _positive(limit, "max_tokens"),
        stream=fields.get("stream") is True,
        usage=options.get("include_usage") is True,
        model=str(fields.get("model") or ""),
    )


def _content(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _positive(value: Any, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise UnprocessableError(f"Input validation error: `{name}` must be strictly positive")


class Voice(Protocol):
    """Renders one reply of `total` tokens: `record` for each but the last, `ending` for the last, or all as `whole`.

    `opening` comes as soon as the request is being worked on and carries no token.
    """

    @property
    def content_type(self) -> str: ...

    @property
    def stream_type(self) -> str: ...

    def opening(self) -> bytes: ...

    def record(self, index: int) -> bytes: ...

    def ending(self) -> bytes: ...

    def whole(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Completion:
    """The facts a reply states; `word` gives the text of each token, `cached_tokens` is None without a cache."""

    ask: Ask
    prompt_tokens: int
    total: int
    finish_reason: str
    id: str
    created_s: int
    word: Callable[[int], str]
    cached_tokens: int | None = None

    def text(self) -> str:
        return (self.ask.prompt if self.ask.echo else "") + "".join(map(self.word, range(self.total)))


def words(start: int) -> Callable[[int], str]:
    """The text of token i of a completion that begins at word `start` of the vocabulary."""
    return lambda index: WORDS[(start + index) % len(WORDS)]


@dataclass(frozen=True, slots=True)
class Tgi:
    """Text Generation Inference."""

    completion: Completion
    content_type: str = "application/json"
    stream_type: str = "text/event-stream"

    def opening(self) -> bytes:
        return b""

    def record(self, index: int) -> bytes:
        word = self.completion.word(index).encode()
        return (
            b'data:{"index":%d,"token":{"id":%d,"text":"%b","logprob":-0.25,"special":false},'
            b'"generated_text":null,"details":null}\n\n'
        ) % (index + 1, 1000 + index, word)

    def ending(self) -> bytes:
        completion = self.completion
        last = completion.total - 1
        token = {"id": 2, "text": completion.word(last), "logprob": -0.25, "special": False}
        details = self._details() if completion.ask.details else None
        record = {
            "index": completion.total,
            "token": token,
            "generated_text": completion.text(),
            "details": details,
        }
        return b"data:" + orjson.dumps(record) + b"\n\n"

    def whole(self) -> bytes:
        reply: dict[str, Any] = {"generated_text": self.completion.text()}
        if self.completion.ask.details:
            reply["details"] = {**self._details(), "prefill": [], "tokens": []}
        return orjson.dumps([reply])

    def _details(self) -> dict[str, Any]:
        completion = self.completion
        reason = "eos_token" if completion.finish_reason == "stop" else "length"
        return {
            "finish_reason": reason,
            "generated_tokens": completion.total,
            "input_length": completion.prompt_tokens,
            "seed": None,
        }


@dataclass(frozen=True, slots=True)
class Lmi:
    """Large Model Inference (DJL Serving)."""

    completion: Completion
    content_type: str = "application/json"
    stream_type: str = "application/jsonlines"

    def opening(self) -> bytes:
        return b""

    def record(self, index: int) -> bytes:
        word = self.completion.word(index).encode()
        return b'{"token":{"id":%d,"text":"%b","log_prob":-0.25}}\n' % (1000 + index, word)

    def ending(self) -> bytes:
        completion = self.completion
        token = {"id": 2, "text": completion.word(completion.total - 1), "log_prob": -0.25}
        return orjson.dumps({"token": token, **self._reply()})

    def whole(self) -> bytes:
        return orjson.dumps(self._reply())

    def _reply(self) -> dict[str, Any]:
        completion = self.completion
        reply: dict[str, Any] = {"generated_text": completion.text()}
        if completion.ask.details:
            reply["details"] = {
                "finish_reason": "eos_token" if completion.finish_reason == "stop" else "length",
                "generated_tokens": completion.total,
                "input_length": completion.prompt_tokens,
            }
        return reply


@dataclass(frozen=True, slots=True)
class JumpStart:
    """JumpStart's older Llama containers, which count nothing and mark no end."""

    completion: Completion
    content_type: str = "application/json"
    stream_type: str = "application/jsonlines"

    def opening(self) -> bytes:
        return b""

    def record(self, index: int) -> bytes:
        return b'{"outputs":["%b"]}\n' % self.completion.word(index).encode()

    def ending(self) -> bytes:
        return self.record(self.completion.total - 1)

    def whole(self) -> bytes:
        return orjson.dumps([{"generated_text": self.completion.text()}])


@dataclass(frozen=True, slots=True)
class OpenAi:
    """OpenAI chat completions, as vLLM and SGLang serve them."""

    completion: Completion
    content_type: str = "application/json"
    stream_type: str = "text/event-stream"

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""}, None)

    def record(self, index: int) -> bytes:
        return self._chunk({"content": self.completion.word(index)}, None)

    def ending(self) -> bytes:
        completion = self.completion
        parts = [self.record(completion.total - 1), self._chunk({}, completion.finish_reason)]
        if completion.ask.usage:
            parts.append(_sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}))
        parts.append(b"data: [DONE]\n\n")
        return b"".join(parts)

    def whole(self) -> bytes:
        completion = self.completion
        message = {"role": "assistant", "content": completion.text()}
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
        return orjson.dumps({**self._head("chat.completion"), "choices": [choice], "usage": self._usage()})

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        completion = self.completion
        return {
            "id": f"chatcmpl-{completion.id}",
            "object": kind,
            "created": completion.created_s,
            "model": completion.ask.model,
        }

    def _usage(self) -> dict[str, Any]:
        completion = self.completion
        counted: dict[str, Any] = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.total,
            "total_tokens": completion.prompt_tokens + completion.total,
        }
        if completion.cached_tokens is not None:
            counted["prompt_tokens_details"] = {"cached_tokens": completion.cached_tokens}
        return counted


def _sse(record: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(record) + b"\n\n"


VOICES: dict[str, Callable[[Completion], Voice]] = {"tgi": Tgi, "lmi": Lmi, "jumpstart": JumpStart, "openai": OpenAi}
