"""``python -m benchmarks.warm``."""

from benchmarks.warm.run import main

if __name__ == "__main__":
    main()
