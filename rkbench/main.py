"""`python -m rkbench.main --config=FILE --workdir=DIR`: what `rkbench train` does."""

import sys

from rkbench.commands.train import run

if __name__ == "__main__":
    run(sys.argv)
