"""`python -m raybench.simulator --config FILE`."""

import sys

from raybench.simulator.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
