"""``python -m benchmarks.ranking``."""

from benchmarks.ranking.run import main

if __name__ == "__main__":
    main()
