"""What containers speak: a prompt into a body, and a reply, whole or record by record, into tokens.

| dialect    | containers                          | a stream's records                 | its last record has      |
|------------|-------------------------------------|------------------------------------|--------------------------|
| tgi        | Hugging Face TGI                    | server-sent events, one token each | details, generated_text  |
| lmi        | LMI / DJL                           | JSON lines, one token each         | details, generated_text  |
| openai     | vLLM, SGLang, NIM, the OpenAI route | server-sent events or JSON lines   | finish_reason, or [DONE] |
| jumpstart  | JumpStart's older Llama containers  | JSON lines                         | nothing: any clean end   |
| embeddings | TEI                                 | none                               |                          |
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from raybench.client.transcript import RecordError, Transcript, count, word
from raybench.errors import InputError

T = TypeVar("T")
Parameters = Mapping[str, Any]

_OF_ANOTHER_DIALECT = (AttributeError, TypeError, KeyError, IndexError)
_HIDDEN = frozenset(("reasoning_content", "reasoning", "tool_calls"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of container is spoken to, and understood.

    `body(prompt, parameters, stream)` is the JSON document to send; `reply` reads a whole one, `record` one record of
    a stream. `terminal` says whether a whole stream is known by its last record.

    `plain` is the short way of common records: the texts of the first of some, each of `tokens` tokens, up to one
    that says anything else, which `record` reads.
    """

    name: str
    body: Callable[[str, Parameters, bool], dict[str, Any]]
    reply: Callable[[Transcript, Any], None]
    record: Callable[[Transcript, Any, int], None] | None
    plain: Callable[[list[Any]], Iterator[str]] = lambda records: iter(())
    tokens: int | None = None
    terminal: bool = True

    def read_reply(self, transcript: Transcript, body: bytes) -> None:
        """Reads a whole reply; raises RecordError if it is not of this dialect."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as wrong:
            raise RecordError("not JSON") from wrong
        if error := _error(document):
            transcript.error = error
            return
        try:
            self.reply(transcript, document)
        except _OF_ANOTHER_DIALECT as wrong:
            raise RecordError(f"not a reply of the dialect {self.name}") from wrong
        transcript.ended = True

    def read_records(self, transcript: Transcript, records: Sequence[bytes], stamps_ns: Sequence[int]) -> None:
        """Reads records of a stream up to an error, as `read_record` does one by one; raises what it raises."""
        documents = _before(orjson.JSONDecodeError, map(orjson.loads, records))
        at = 0
        while at < len(records) and transcript.error is None:
            if texts := _before(_OF_ANOTHER_DIALECT, self.plain(documents[at:])):
                transcript.records += len(texts)
                transcript.chunks(stamps_ns[at : at + len(texts)], texts, self.tokens)
            elif at < len(documents):
                self._read(transcript, documents[at], stamps_ns[at])
            else:
                self.read_record(transcript, records[at], stamps_ns[at])
            at += len(texts) or 1

    def read_record(self, transcript: Transcript, record: bytes, stamp_ns: int) -> None:
        """Reads one record of a stream; raises RecordError if it is not of this dialect."""
        try:
            document = orjson.loads(record)
        except orjson.JSONDecodeError as wrong:
            transcript.records += 1
            if record.strip() != b"[DONE]":
                raise RecordError("not JSON") from wrong
            transcript.ended = True
        else:
            self._read(transcript, document, stamp_ns)

    def _read(self, transcript: Transcript, document: Any, stamp_ns: int) -> None:
        transcript.records += 1
        if self.record is None or type(document) is not dict:
            raise RecordError(f"not a record of the dialect {self.name}")
        if "error" in document and (error := _error(document)):
            transcript.error = error
            return
        try:
            self.record(transcript, document, stamp_ns)
        except _OF_ANOTHER_DIALECT as wrong:
            raise RecordError(f"not a record of the dialect {self.name}") from wrong


def _before(wrong: type[Exception] | tuple[type[Exception], ...], items: Iterable[T]) -> list[T]:
    """The items before the first that raises one of `wrong`."""
    found: list[T] = []
    try:
        found.extend(items)
    except wrong:
        return found
    return found


def _error(document: Any) -> tuple[str, str] | None:
    """The (code, message) of an error where a completion should be, in any container's words."""
    if type(document) is not dict or not (error := document.get("error")):
        return None
    if isinstance(error, dict):
        code = error.get("code") or error.get("type")
        return str(code or "Error"), str(error.get("message", ""))
    return str(document.get("error_type") or document.get("code") or "Error"), str(error)


def _text(value: Any) -> str:
    """A text that may be null; raises TypeError for anything else."""
    if value is None:
        return ""
    if type(value) is not str:
        raise TypeError
    return value


# TGI and LMI


def _inputs_body(prompt: str, parameters: Parameters, stream: bool) -> dict[str, Any]:
    asked = {"details": True, "return_full_text": False, **parameters}
    return {"inputs": prompt, "parameters": asked, **({"stream": True} if stream else {})}


def _generated_reply(transcript: Transcript, document: Any) -> None:
    first = document[0] if isinstance(document, list) else document
    transcript.whole(_text(first["generated_text"]))
    if details := first.get("details"):
        transcript.details(details)


def _token_record(transcript: Transcript, record: dict[str, Any], stamp_ns: int) -> None:
    details = record.get("details")
    if details:
        transcript.details(details)
        if transcript.finish_reason == "error":
            transcript.error = "Error", str(details.get("error", "the server ended with an error"))
            return
    if token := record.get("token"):
        special = token.get("special") or token.get("special_token")
        transcript.chunk(stamp_ns, "" if special else _text(token["text"]), 1)
    elif details is None and record["generated_text"] is None:
        raise KeyError("token")
    if details or record.get("generated_text") is not None:
        transcript.ended = True


def _token_texts(records: list[Any]) -> Iterator[str]:
    for record in records:
        token = record["token"]
        text = token["text"]
        if type(text) is not str or token.get("special") or token.get("special_token"):
            return
        if record.get("details") or record.get("generated_text") is not None or "error" in record:
            return
        yield text


# OpenAI


def _messages_body(prompt: str, parameters: Parameters, stream: bool) -> dict[str, Any]:
    asked = dict(parameters)
    if "max_new_tokens" in asked:
        asked["max_tokens"] = asked.pop("max_new_tokens")
    document = {"model": "", "messages": [{"role": "user", "content": prompt}], **asked}
    if stream:
        document["stream"] = True
        document["stream_options"] = {"include_usage": True, **asked.get("stream_options", {})}
    return document


def _said(message: Mapping[str, Any]) -> tuple[str, str]:
    """A message's content, and what else of it was generated: reasoning or tool calls."""
    hidden = _text(message.get("reasoning_content") or message.get("reasoning"))
    if calls := message.get("tool_calls"):
        hidden += "".join(_text(call.get("function", {}).get("arguments")) for call in calls) or " "
    return _text(message.get("content")), hidden


def _choice_reply(transcript: Transcript, document: Any) -> None:
    choice = document["choices"][0]
    text, hidden = _said(choice["message"]) if "message" in choice else (_text(choice["text"]), "")
    transcript.whole(text, hidden)
    transcript.finish_reason = word(choice.get("finish_reason"))
    if usage := document.get("usage"):
        transcript.usage(usage)


def _delta_record(transcript: Transcript, record: dict[str, Any], stamp_ns: int) -> None:
    if usage := record.get("usage"):
        transcript.usage(usage)
    for choice in record["choices"][:1]:
        text, hidden = _said(choice["delta"]) if "delta" in choice else (_text(choice["text"]), "")
        if text or hidden:
            transcript.chunk(stamp_ns, text, None, hidden)
        if reason := choice.get("finish_reason"):
            transcript.finish_reason = word(reason)
            transcript.ended = True


def _delta_texts(records: list[Any]) -> Iterator[str]:
    for record in records:
        choice = record["choices"][0]
        delta = choice["delta"]
        text = delta["content"]
        if type(text) is not str or not text or (len(delta) > 1 and not _HIDDEN.isdisjoint(delta)):
            return
        if choice.get("finish_reason") or record.get("usage") or "error" in record:
            return
        yield text


# JumpStart


def _plain_body(prompt: str, parameters: Parameters, stream: bool) -> dict[str, Any]:
    return {"inputs": prompt, "parameters": dict(parameters)}


def _generation_reply(transcript: Transcript, document: Any) -> None:
    first = document[0] if isinstance(document, list) else document
    said = first["generation"] if "generation" in first else first["generated_text"]
    transcript.whole(_text(said["content"] if isinstance(said, dict) else said))


def _outputs_record(transcript: Transcript, record: dict[str, Any], stamp_ns: int) -> None:
    if text := _text(record["outputs"][0]):
        transcript.chunk(stamp_ns, text, None)


def _outputs_texts(records: list[Any]) -> Iterator[str]:
    for record in records:
        text = record["outputs"][0]
        if type(text) is not str or not text or "error" in record:
            return
        yield text


# Embeddings


def _texts_body(prompt: str, parameters: Parameters, stream: bool) -> dict[str, Any]:
    if stream:
        raise InputError("embeddings cannot be streamed", key="route", allowed="invoke")
    return {"inputs": [prompt], **parameters}


def _vectors_reply(transcript: Transcript, document: Any) -> None:
    vectors = document["data"] if isinstance(document, dict) else document
    vector = vectors[0]["embedding"] if isinstance(document, dict) else vectors[0]
    if type(vector) is not list or not vector:
        raise TypeError
    transcript.completion_tokens = 0
    if isinstance(document, dict) and (usage := document.get("usage")):
        transcript.prompt_tokens = count(usage.get("prompt_tokens"))


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("tgi", _inputs_body, _generated_reply, _token_record, _token_texts, 1),
        Dialect("lmi", _inputs_body, _generated_reply, _token_record, _token_texts, 1),
        Dialect("openai", _messages_body, _choice_reply, _delta_record, _delta_texts),
        Dialect("jumpstart", _plain_body, _generation_reply, _outputs_record, _outputs_texts, terminal=False),
        Dialect("embeddings", _texts_body, _vectors_reply, None),
    )
}


def dialect_named(name: str) -> Dialect:
    """The dialect of a name; raises InputError for an unknown one."""
    if name not in DIALECTS:
        raise InputError(f"no dialect {name!r}", key="dialect", allowed=", ".join(DIALECTS))
    return DIALECTS[name]


def body(dialect: str, prompt: str, parameters: Parameters, stream: bool) -> bytes:
    """A prompt as the JSON body that asks `dialect` to complete it, whole or as a stream, counting its tokens."""
    return orjson.dumps(dialect_named(dialect).body(prompt, parameters, stream))
