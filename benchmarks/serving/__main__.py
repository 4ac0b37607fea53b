"""``python -m benchmarks.serving``: see :mod:`benchmarks.serving.run`."""

import typer

from benchmarks.serving.run import main

if __name__ == "__main__":
    typer.run(main)
