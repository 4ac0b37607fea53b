"""``python -m benchmarks.warm``."""

import typer

from benchmarks.warm.run import main

if __name__ == "__main__":
    typer.run(main)
