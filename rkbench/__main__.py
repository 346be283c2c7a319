"""`python -m rkbench COMMAND`: the console command `rkbench`."""

from rkbench.commands.cli import main

if __name__ == "__main__":
    main()
