"""A payload's prompts: what of a dataset falls into its bucket of tokens and language, and why the rest does not."""

import hashlib
import random
import sys
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
import orjson

from raybench.errors import InputError
from raybench.payloads.files import Jsonl, LongBench, Text, texts
from raybench.payloads.synthetic import Recorded, Synthetic, lengths, write
from raybench.payloads.templates import read_template
from raybench.payloads.tokens import Counter
from raybench.rows import Prompt

MAX_BODY_BYTES = 6_291_456
"""The largest body that InvokeEndpoint takes (SageMaker Runtime API model)."""

ROOM_BYTES = 4096
"""Kept free in a body for what stands beside the prompt: parameters, braces, quotes."""

DROPS = ("language", "too_large", "too_short", "too_long", "duplicate", "limit")
"""Why a prompt is left out, in the order of asking."""

_ANY = (0, sys.maxsize)

RECORDED_TOKENS = 32_000_000
"""The most tokens of prompts that a trace may ask for: some 160 MB of text, held by every load actor."""

Dataset = LongBench | Jsonl | Synthetic | Recorded


@dataclass(frozen=True, slots=True)
class Payload:
    """The prompts of `dataset` with tokens in `[low, high)`, in `language`, at most `limit` of them."""

    name: str
    dataset: Dataset
    template: Path | None = None
    tokens: tuple[int, int] | None = None
    language: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and not 0 <= self.tokens[0] < self.tokens[1]:
            raise ValueError(f"tokens is [{self.tokens[0]}, {self.tokens[1]}]; low and high with 0 <= low < high")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; at least 1")
        if isinstance(self.dataset, Recorded):
            if (self.template, self.tokens, self.language, self.limit) != (None, None, None, None):
                raise ValueError("the prompts of a trace are all there, in its order; nothing beside it")
        elif isinstance(self.dataset, Synthetic):
            self._check_synthetic(self.dataset)
        elif not self.dataset.files:
            raise ValueError("the dataset names no file; at least one")

    def _check_synthetic(self, dataset: Synthetic) -> None:
        if self.template is not None:
            raise ValueError("a synthetic dataset takes no template; its texts have the wanted length as they are")
        if self.language not in (None, "en"):
            raise ValueError(f"language is {self.language}; synthetic texts are in en")
        if dataset.prompt_tokens is None:
            if self.tokens is None:
                raise ValueError("a synthetic dataset needs a length; tokens or prompt_tokens")
        elif self.tokens is not None:
            (low, high), (first, end) = dataset.prompt_tokens, self.tokens
            if low < first or high > end:
                raise ValueError(f"prompt_tokens [{low}, {high}] reaches out of tokens; within [{first}, {end}]")


@dataclass(frozen=True, slots=True)
class Pool:
    """A payload's prompts in their dataset's order, and how many were left out by reason."""

    name: str
    prompts: tuple[Prompt, ...]
    dropped: Mapping[str, int]
    counter: Counter
    datasets: tuple[str, ...]

    @property
    def tokens_source(self) -> str:
        """By what means the prompts' tokens are counted."""
        return str(self.counter.source)

    @property
    def kept(self) -> int:
        return len(self.prompts)

    @property
    def prompt_tokens_mean(self) -> float:
        """Mean tokens of the prompts, each counted once."""
        return sum(prompt.tokens for prompt in self.prompts) / len(self.prompts)


def load_pool(payload: Payload, counter: Counter, seed: int, base_dir: Path) -> Pool:
    """Reads or writes the payload's prompts; relative paths start at `base_dir`.

    A file that is missing or wrong, and a bucket that stays empty, are InputErrors.
    """
    rng = random.Random(f"prompts {payload.name} {seed}")
    if isinstance(payload.dataset, Recorded):
        prompts = tuple(_recorded(payload.name, payload.dataset, counter, rng))
        return Pool(payload.name, prompts, dict.fromkeys(DROPS, 0), counter, (payload.dataset.name,))
    bucket = _Bucket(payload, counter)
    datasets: tuple[str, ...] = ("synthetic",)
    if isinstance(payload.dataset, Synthetic):
        found = _synthetic(payload, payload.dataset, counter, rng)
    else:
        template = None if payload.template is None else read_template(base_dir / payload.template)
        found = texts(payload.dataset, template, base_dir)
        datasets = tuple(file.name for file in payload.dataset.files)
    kept = bucket.keep(found)
    chosen = tuple(kept) if payload.limit is None else _choose(kept, payload.limit, rng, bucket.dropped)
    if not chosen:
        raise InputError(bucket.verdict(), key=f"payload {payload.name}", allowed="at least one prompt")
    return Pool(payload.name, chosen, dict(bucket.dropped), counter, datasets)


def in_order(prompts: int, actor: int = 0, actors: int = 1) -> Iterator[int]:
    """Endless indices into a pool, first to last and again; actor `actor` of `actors` takes every `actors`-th."""
    return islice(cycle(range(prompts)), actor, None, actors)


def order(prompts: int, seed: int, trial: int, actor: int = 0, actors: int = 1) -> Iterator[int]:
    """Endless indices into a pool: every prompt once in each pass, each pass shuffled anew.

    Trials of one seed share the order of the first pass and start at places as far apart as can be (multiples of the
    golden section), so that short trials do not replay each other's prompts. Actor `actor` of `actors` takes every
    `actors`-th: together they take the very sequence that one alone would.
    """
    return islice(_passes(prompts, seed, trial), actor, None, actors)


def _passes(prompts: int, seed: int, trial: int) -> Iterator[int]:
    start = trial * (round(prompts * 0.6180339887) or 1)
    yield from np.roll(_shuffled(prompts, seed), -start).tolist()
    for turn in count(1):
        yield from _shuffled(prompts, seed, trial, turn).tolist()


def _shuffled(prompts: int, seed: int, *key: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    stream = int.from_bytes(b"order")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *key))).permutation(prompts)


def _synthetic(payload: Payload, dataset: Synthetic, counter: Counter, rng: random.Random) -> Iterator[Text]:
    low, high = dataset.prompt_tokens or payload.tokens or (1, 2)
    low = max(low, 1)
    try:
        for text in write(lengths(dataset.prompts, low, high, rng), low, high, counter, rng):
            yield Text(text, "en")
    except ValueError as error:
        key = f"payload {payload.name}"
        raise InputError(str(error), key=key, allowed="longer texts, or fewer of them") from None


def _recorded(name: str, trace: Recorded, counter: Counter, rng: random.Random) -> Iterator[Prompt]:
    """A prompt for each request of a trace; the shortest may be alike, as they are in the trace."""
    key, wanted = f"payload {name}", [tokens_in for tokens_in, _ in trace.lengths]
    if sum(wanted) > RECORDED_TOKENS:
        problem = f"the prompts of {trace.name} have {sum(wanted):,} tokens"
        raise InputError(problem, key=key, allowed=f"at most {RECORDED_TOKENS:,}: a slice of the trace")
    written = write(wanted, 1, sys.maxsize, counter, rng, alike=True)
    for place, (text, (_, tokens_out)) in enumerate(zip(written, trace.lengths, strict=True)):
        if len(text) > MAX_BODY_BYTES - ROOM_BYTES:
            problem = f"request {place} of {trace.name} has {len(text):,} bytes"
            raise InputError(problem, key=key, allowed=f"at most {MAX_BODY_BYTES - ROOM_BYTES:,}: a slice without it")
        yield Prompt(text, counter.count(text), str(counter.source), tokens_out)


class _Bucket:
    """Sorts texts into those kept, as prompts, and those dropped, as counts."""

    def __init__(self, payload: Payload, counter: Counter) -> None:
        self.tokens = payload.tokens or _ANY
        self.language = payload.language
        self.counter = counter
        self.dropped: Tally[str] = Tally(dict.fromkeys(DROPS, 0))
        self.shortest: int | None = None
        self.longest: int | None = None
        self._known: set[bytes] = set()

    def keep(self, found: Iterable[Text]) -> Iterator[Prompt]:
        """The prompts among the texts."""
        for each in found:
            tokens, reason = self._judge(each)
            if reason is None:
                yield Prompt(each.text, tokens, str(self.counter.source))
            else:
                self.dropped[reason] += 1

    def _judge(self, each: Text) -> tuple[int, str | None]:
        """The text's tokens, and why it is dropped, if it is."""
        if self.language is not None and each.language != self.language:
            return 0, "language"
        if len(orjson.dumps(each.text)) > MAX_BODY_BYTES - ROOM_BYTES:
            return 0, "too_large"
        tokens = self.counter.count(each.text)
        self.shortest = tokens if self.shortest is None else min(tokens, self.shortest)
        self.longest = tokens if self.longest is None else max(tokens, self.longest)
        low, high = self.tokens
        if tokens < low or not each.text.strip():
            return tokens, "too_short"
        if tokens >= high:
            return tokens, "too_long"
        digest = hashlib.blake2b(each.text.encode(), digest_size=16).digest()
        if digest in self._known:
            return tokens, "duplicate"
        self._known.add(digest)
        return tokens, None

    def verdict(self) -> str:
        """Why nothing was kept, in one line."""
        reasons = ", ".join(f"{self.dropped[reason]} {reason}" for reason in DROPS if self.dropped[reason])
        if not reasons:
            return "the dataset is empty"
        line = f"none of {self.dropped.total()} prompts fits: {reasons}"
        if self.shortest is None or self.tokens == _ANY:
            return line
        low, high = self.tokens
        return f"{line}; they have {self.shortest} to {self.longest} tokens, {low} to {high - 1} are wanted"


def _choose(prompts: Iterable[Prompt], limit: int, rng: random.Random, dropped: Tally[str]) -> tuple[Prompt, ...]:
    """At most `limit` prompts, each equally likely to be among them, in their order (reservoir sampling)."""
    chosen: dict[int, tuple[int, Prompt]] = {}
    for seen, prompt in enumerate(prompts):
        slot = seen if seen < limit else rng.randrange(seen + 1)
        if slot < limit:
            chosen[slot] = (seen, prompt)
        if seen >= limit:
            dropped["limit"] += 1
    return tuple(prompt for _, prompt in sorted(chosen.values(), key=lambda pair: pair[0]))
