"""The payloads of a config: where their prompts come from, and which of them are wanted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from raybench.load.arrivals import Replay
from raybench.payloads.files import Jsonl, LongBench
from raybench.payloads.pool import Payload, Pool, load_pool
from raybench.payloads.synthetic import Recorded, Synthetic
from raybench.payloads.tokens import counter
from raybench.strict import Distinct, File, Model, Name, OneOrMore, Slice, nearest, wrong

Tokens = Annotated[int, Field(ge=0, le=10_000_000)]


class LongBenchFiles(Model):
    """LongBench JSONL files: one object a line with input, context, language, …"""

    longbench: Annotated[tuple[File, ...], OneOrMore, Distinct]

    @property
    def source(self) -> LongBench:
        """Where the texts come from."""
        return LongBench(self.longbench)


class JsonlFiles(Model):
    """JSONL files with a prompt a line, or with the fields a template names."""

    jsonl: Annotated[tuple[File, ...], OneOrMore, Distinct]

    @property
    def source(self) -> Jsonl:
        """Where the texts come from."""
        return Jsonl(self.jsonl)


class SyntheticTexts(Model):
    """How many prompts to make up, and how long: tokens in [low, high), by default the payload's."""

    prompts: int = Field(ge=1, le=1_000_000)
    tokens: tuple[Tokens, Tokens] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tokens and not 1 <= self.tokens[0] < self.tokens[1]:
            raise wrong(f"no length is in {_bucket(self.tokens)}", "[min, max) with 1 <= min < max", "tokens")
        return self


class SyntheticPrompts(Model):
    """Made-up prompts, seeded, each different."""

    synthetic: SyntheticTexts

    @property
    def source(self) -> Synthetic:
        """Where the texts come from."""
        return Synthetic(self.synthetic.prompts, self.synthetic.tokens)


class TraceRequests(Model):
    """Made-up prompts as long as those of a recorded trace, or of a `slice` of it, each with the trace's own most
    tokens to answer with; a replay of that trace sends them in its order."""

    trace: File
    slice_s: Slice | None = Field(default=None, alias="slice")

    @property
    def source(self) -> Recorded:
        """Where the texts come from; InputError where the trace cannot be read, or has nothing in the slice."""
        asked = Replay(self.trace, slice_s=self.slice_s).requests()
        lengths = zip(asked.input_tokens.tolist(), asked.output_tokens.tolist(), strict=True)
        return Recorded(self.trace.name, tuple((max(1, tokens_in), max(1, most)) for tokens_in, most in lengths))


_DATASETS = ("longbench", "jsonl", "synthetic", "trace")
_KINDS = f"exactly one of {', '.join(_DATASETS)}"


def _one_kind_of_dataset(value: Any) -> Any:
    if not isinstance(value, dict):
        raise wrong("is not a mapping", _KINDS)
    for key in value:
        if key not in _DATASETS and not (key == "slice" and "trace" in value):
            raise wrong("not a kind of dataset", nearest(key, _DATASETS), key)
    if len(value.keys() - {"slice"}) != 1:
        raise wrong("which dataset?", _KINDS)
    return value


_TAGS = {"longbench": "LongBench", "jsonl": "JSONL", "trace": "recorded"}

Dataset = Annotated[
    Annotated[LongBenchFiles, Tag("LongBench")]
    | Annotated[JsonlFiles, Tag("JSONL")]
    | Annotated[SyntheticPrompts, Tag("made up")]
    | Annotated[TraceRequests, Tag("recorded")],
    Discriminator(lambda value: next((tag for key, tag in _TAGS.items() if key in value), "made up")),
    BeforeValidator(_one_kind_of_dataset),
]


class PayloadSpec(Model):
    """One set of prompts: a dataset's texts whose token count lies in [tokens[0], tokens[1]), in one language."""

    name: Name
    dataset: Dataset
    template: File | None = None
    tokens: tuple[Tokens, Tokens] | None = None
    language: str | None = Field(default=None, min_length=1, max_length=20)
    tokenizer: File | None = None
    limit: int | None = Field(default=None, ge=1, le=1_000_000)

    @property
    def payload(self) -> Payload:
        """The prompts to load."""
        return Payload(self.name, self.dataset.source, self.template, self.tokens, self.language, self.limit)

    @property
    def expected_tokens(self) -> int | None:
        """The middle of the lengths asked for; of a trace's, the mean."""
        if isinstance(self.dataset, TraceRequests):
            lengths = self.dataset.source.lengths
            return sum(tokens_in for tokens_in, _ in lengths) // len(lengths)
        made_up = self.dataset.synthetic.tokens if isinstance(self.dataset, SyntheticPrompts) else None
        wanted = made_up or self.tokens
        return sum(wanted) // 2 if wanted else None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tokens and self.tokens[0] >= self.tokens[1]:
            raise wrong(f"no length is in {_bucket(self.tokens)}", "[min, max) with min < max", "tokens")
        if isinstance(self.dataset, SyntheticPrompts):
            self._check_made_up(self.dataset.synthetic.tokens)
        if isinstance(self.dataset, TraceRequests):
            for name in ("tokens", "template", "language", "limit"):
                if getattr(self, name) is not None:
                    raise wrong("a trace's requests are all there, as long as they were", f"no {name}", name)
        return self

    def _check_made_up(self, wanted: tuple[int, int] | None) -> None:
        """Made-up prompts have a length, inside the bucket, and are English as they are."""
        at = ("dataset", "synthetic")
        if wanted is None and self.tokens is None:
            raise wrong("how long are the made-up prompts?", "tokens: [min, max)", *at)
        if wanted and self.tokens and not self.tokens[0] <= wanted[0] < wanted[1] <= self.tokens[1]:
            inside = f"inside the bucket {_bucket(self.tokens)}"
            raise wrong(f"{_bucket(wanted)} reaches out of the bucket", inside, *at, "tokens")
        if self.template is not None:
            raise wrong("made-up prompts take no template", "no template", "template")
        if self.language not in (None, "en"):
            raise wrong("made-up prompts are in English", "language: en", "language")


def _bucket(tokens: tuple[int, int]) -> str:
    return f"[{tokens[0]}, {tokens[1]})"


def load_pools(payloads: Sequence[PayloadSpec], seed: int, folder: Path) -> dict[str, Pool]:
    """The prompts of every payload by its name; the files of datasets are found from `folder`."""
    return {one.name: load_pool(one.payload, counter(one.tokenizer), seed, folder) for one in payloads}
