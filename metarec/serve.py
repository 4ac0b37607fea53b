"""``python -m metarec.serve``: see :mod:`metarec.cli.serve`."""

from metarec.cli.serve import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
