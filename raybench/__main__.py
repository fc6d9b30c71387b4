"""`python -m raybench` is `raybench`."""

from raybench.cli import main

if __name__ == "__main__":
    main()
