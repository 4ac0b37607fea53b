"""``metarec COMMAND``: the same as ``python -m metarec.COMMAND``."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

__all__ = ["main"]

COMMANDS = ("study", "compare", "predict", "serve")


def main() -> None:
    """Run the command that the first argument names; the others are its arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in COMMANDS:
        sys.argv[:2] = [f"metarec {command}"]
        import_module(f"metarec.cli.{command}").main()
        return
    asked = command in ("--help", "-h")
    typer.echo(f"usage: metarec {'|'.join(COMMANDS)} ...; metarec COMMAND --help lists the options", err=not asked)
    sys.exit(0 if asked else 2)


if __name__ == "__main__":
    main()
