"""How long the dress rehearsal of the seed's whole benchmark takes, and how fast virtual time is played.

Prints the seconds, and how many seconds of load are played in one. Goal: 60 s on 2 cores.
"""

import time
from pathlib import Path

from raybench.config import load_config
from raybench.plan import plan
from raybench.rehearsal import rehearse

CONFIG = Path(__file__).parents[1] / "configs" / "llama2-70b-g5-p4d-tgi.yaml"


def main() -> None:
    config = load_config(CONFIG)
    begun_s = time.perf_counter()
    rehearsal = rehearse(config, plan(config), workers=2)
    took_s = time.perf_counter() - begun_s
    load_s = sum(each.seconds for each in rehearsal.trials)
    print(f"{len(rehearsal.trials)} trials, {load_s:,.0f} s of load, rehearsed in {took_s:.1f} s")
    print(f"{load_s / took_s:,.0f} times faster than it will be played, each trial a second time and longer included")


if __name__ == "__main__":
    main()
