"""Tables in: domains, rating scales, readers, the simulated world."""

from metarec.ratings._domain import Domain, RatingScale

__all__ = ["Domain", "RatingScale"]
