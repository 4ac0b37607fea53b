"""Tables of feedback: domains, rating scales, readers, simulated data."""

from metarec.ratings._domain import Domain, Feedback, RatingScale, rated_domains
from metarec.ratings._features import titles_of
from metarec.ratings._ids import ids_of
from metarec.ratings._readers import read_domain, read_domains, read_rows
from metarec.ratings._scale import common_scale, infer_scale
from metarec.ratings._simulate import SimulatedWorld, simulate_domains, simulate_world
from metarec.ratings._simulate_events import SimulatedShop, simulate_implicit_domains, simulate_implicit_world
from metarec.ratings._times import seconds_of
from metarec.ratings.tables import read_parquet

__all__ = [
    "Domain",
    "Feedback",
    "RatingScale",
    "SimulatedShop",
    "SimulatedWorld",
    "common_scale",
    "ids_of",
    "infer_scale",
    "rated_domains",
    "read_domain",
    "read_domains",
    "read_parquet",
    "read_rows",
    "seconds_of",
    "simulate_domains",
    "simulate_implicit_domains",
    "simulate_implicit_world",
    "simulate_world",
    "titles_of",
]
