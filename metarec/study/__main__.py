"""``python -m metarec.study``: see :mod:`metarec.cli.study`."""

from metarec.cli.study import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
