"""Studies: a tracked search over configurations, and one scoring of the result on test users."""
