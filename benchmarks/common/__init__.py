"""What several benchmarks share: cells of long runs, statistics, rating sets, and how commands end."""
