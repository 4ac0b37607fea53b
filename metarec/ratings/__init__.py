"""Tables of feedback: domains, rating scales, readers, simulated data."""

from metarec.ratings._domain import Domain, Feedback, RatingScale, rated_domains
from metarec.ratings._parquet import read_parquet
from metarec.ratings._readers import read_domain, read_domains, read_rows
from metarec.ratings._scale import common_scale, infer_scale
from metarec.ratings._simulate import SimulatedWorld, simulate_domains, simulate_world
from metarec.ratings._simulate_events import SimulatedShop, simulate_implicit_domains, simulate_implicit_world

__all__ = [
    "Domain",
    "Feedback",
    "RatingScale",
    "SimulatedShop",
    "SimulatedWorld",
    "common_scale",
    "infer_scale",
    "rated_domains",
    "read_domain",
    "read_domains",
    "read_parquet",
    "read_rows",
    "simulate_domains",
    "simulate_implicit_domains",
    "simulate_implicit_world",
    "simulate_world",
]
