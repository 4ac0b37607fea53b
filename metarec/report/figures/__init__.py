"""Pictures, drawn from plain values."""
