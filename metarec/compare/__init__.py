"""The comparison of transfer strategies: every competitor in the same rounds, every cell kept, one table at the end."""
