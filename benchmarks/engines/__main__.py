"""``python -m benchmarks.engines``."""

from benchmarks.engines.run import main

if __name__ == "__main__":
    main()
