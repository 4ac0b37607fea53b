"""The benchmark on lists for cold users: metarec against tuned opponents over the whole catalogue."""
