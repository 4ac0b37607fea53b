"""``python -m benchmarks.engines``: see :mod:`benchmarks.engines.run`."""

import typer

from benchmarks.engines.run import main

if __name__ == "__main__":
    typer.run(main)
