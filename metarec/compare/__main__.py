"""``python -m metarec.compare``: see :mod:`metarec.cli.compare`."""

from metarec.cli.compare import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
