"""``python -m benchmarks.cold``."""

from benchmarks.cold.run import main

if __name__ == "__main__":
    main()
