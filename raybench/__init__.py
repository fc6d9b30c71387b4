"""Play a plan of requests against an endpoint, write down every instant, and reduce the table to numbers.

The load wing turns a plan into rows, the analysis wing turns rows into numbers; they meet in the run directory.
"""

__version__ = "0.1.0"
