"""``python -m benchmarks.transfer``."""

from benchmarks.transfer.run import main

if __name__ == "__main__":
    main()
