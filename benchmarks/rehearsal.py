"""How long dress rehearsals take, and how fast virtual time plays: the seed's whole benchmark, and a search.

Prints the seconds, and how many seconds of load are played in one. Goal: 60 s each on 2 cores.
"""

import time
from pathlib import Path

from raybench.config import load_config
from raybench.plan import plan
from raybench.rehearsal import rehearse

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = ("llama2-70b-g5-p4d-tgi.yaml", "search.yaml")


def main() -> None:
    for name in NAMES:
        config = load_config(CONFIGS / name)
        begun_s = time.perf_counter()
        rehearsal = rehearse(config, plan(config), workers=2)
        took_s = time.perf_counter() - begun_s
        load_s = sum(each.seconds for each in rehearsal.trials) + sum(each.seconds for each in rehearsal.searches)
        played = f"{len(rehearsal.trials)} trials and {len(rehearsal.searches)} searches, {load_s:,.0f} s of load"
        print(f"{name}: {played}, rehearsed in {took_s:.1f} s: {load_s / took_s:,.0f} times faster than played")
    print("each trial a second time and longer included, to find the length that certifies")


if __name__ == "__main__":
    main()
