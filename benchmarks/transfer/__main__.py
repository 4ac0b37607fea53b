"""``python -m benchmarks.transfer``: see :mod:`benchmarks.transfer.run`."""

import typer

from benchmarks.transfer.run import main

if __name__ == "__main__":
    typer.run(main)
