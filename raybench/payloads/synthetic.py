"""Synthetic prompts: English words drawn by a seed until the text has the wanted number of tokens.

Words are drawn from the first one on, so no two prompts have a long beginning in common for a
prefix cache to serve.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from raybench.payloads.tokens import Counter

HEAD_WORDS = 8
"""No two prompts begin with the same so many words (or are the same, where they are shorter)."""

DRAWS = 100

_COMMON = """
about above after again air all along also always among animal another answer any around ask away back bank base
bear beauty bed before begin behind best better between big bird black blue board boat body book both box boy
bring brother brown build built bus business but call came can car care carry case cat catch cause center
century certain change check child children church circle city class clear close cloud cold color come common
complete contain control cook cool corner cost could count country course cover create cross cry current cut
dance dark day dead deal deep describe design develop did differ direct do doctor dog door double down draw
dream dress drive drop dry during each early earth east easy eat edge effect eight either end energy engine
enough even evening ever every example eye face fact fall family far farm fast father feel feet few field fight
figure fill final find fine fire first fish five floor flow fly follow food foot for force forest form forward
found four free fresh friend from front full game garden gas gave general get girl give glass go gold gone good
government grass great green ground group grow had half hand happen happy hard has hat have he head hear heart
heat heavy held help her here high hill him his history hold home hope horse hot hour house how human hundred
ice idea if important in include inside instead interest island it job join joy jump just keep key kind king
knew know lady lake land language large last late laugh law lay lead learn leave left leg less let letter level
life light like line list listen little live long look lost love low machine made main make man many map mark
market matter may me mean measure meet member men might mile milk mind minute miss modern moment money month
moon more morning most mother mountain mouth move much music must my name nation nature near need never new next
night nine no noise north note nothing notice now number object ocean of off office often oil old on once one
only open or order other our out over own page paint pair paper part party pass past path pattern pay people
perhaps person picture piece place plain plan plane plant play point poor position power present press probably
problem process produce public pull push put question quick quiet race radio rain ran reach read ready real
reason record red remember rest result return rich ride right ring rise river road rock role room root round
rule run safe said sail salt same sand save saw say school science sea season seat second see seem self send
sense serve set seven several shape sharp she ship short should show side sign silver simple since sing single
sister sit six size skin sky sleep slow small snow so society soft soil some song soon sound south space speak
special spend spring square stand star start state station stay step still stone stop store story street strong
student study such sugar summer sun sure surface system table tail take talk tall teach team tell ten test than
that the their them then there these they thing think third this those thought three through time to today
together told too took top total touch toward town trade train travel tree true try turn two type under unit
until up use valley very village voice wait walk wall want war warm was wash watch water wave way we week well
went were west what wheel when where which while white who whole why wide wife wild will wind window winter wish
with woman wonder wood word work world would write year yellow yes yet you young
"""

WORDS = tuple(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Synthetic:
    """`prompts` texts of tokens drawn uniformly from `[low, high)`; the payload's own range where none is given."""

    prompts: int
    prompt_tokens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.prompts < 1:
            raise ValueError(f"prompts is {self.prompts}; at least 1")
        if self.prompt_tokens is not None and not 1 <= self.prompt_tokens[0] < self.prompt_tokens[1]:
            low, high = self.prompt_tokens
            raise ValueError(f"prompt_tokens is [{low}, {high}]; low and high with 1 <= low < high")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A prompt for each request of the trace `name`, in its order: tokens in, and the most tokens out."""

    name: str
    lengths: tuple[tuple[int, int], ...]


def lengths(prompts: int, low: int, high: int, rng: random.Random) -> Iterator[int]:
    """`prompts` token counts drawn uniformly from `[low, high)`."""
    return (rng.randrange(low, high) for _ in range(prompts))


def write(
    wanted: Iterable[int], low: int, high: int, counter: Counter, rng: random.Random, *, alike: bool = False
) -> Iterator[str]:
    """One text of each wanted number of tokens, or the nearest that words reach, always within `[low, high)`.

    No two begin alike, but for short ones that run out where `alike` allows it. ValueError where there is no such
    text, or not so many of them.
    """
    words = _Words(counter, rng)
    heads: set[str] = set()
    for tokens in wanted:
        for _ in range(DRAWS):
            text = words.text(tokens, low, high)
            head = " ".join(text.split(" ", HEAD_WORDS)[:HEAD_WORDS])
            if head not in heads:
                break
        else:
            if not alike:
                raise ValueError(f"only {len(heads)} different texts of about {tokens} tokens were found")
        heads.add(head)
        yield text


class _Words:
    """Draws from the words that cost least under a counter: all the same, so their number gives the tokens."""

    def __init__(self, counter: Counter, rng: random.Random) -> None:
        self.counter, self.rng = counter, rng
        first = counter.count("the")
        costs = {word: (counter.count(f"the{f' {word}' * 12}") - first) / 12 for word in WORDS}
        self.cost = min(costs.values())
        self.words = [word for word in WORDS if costs[word] == self.cost]
        self.before = first - self.cost

    def text(self, tokens: int, low: int, high: int) -> str:
        """Random words, as many as come nearest to `tokens` by counting them."""
        drawn: list[str] = []
        found: dict[int, int] = {}
        n = max(1, round((tokens - self.before) / self.cost))
        while n not in found:
            drawn += self.rng.choices(self.words, k=max(0, n - len(drawn)))
            found[n] = self.counter.count(" ".join(drawn[:n]))
            lacking = (tokens - found[n]) / self.cost
            n = max(1, n + (math.ceil(lacking) if lacking > 0 else math.floor(lacking)))
        n = min(found, key=lambda n: (not low <= found[n] < high, abs(found[n] - tokens), n))
        if not low <= found[n] < high:
            raise ValueError(f"no text has {low} to {high - 1} tokens, as {self.counter.source} counts them")
        return " ".join(drawn[:n])
