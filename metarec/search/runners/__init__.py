"""The runners of trials: processes of this machine, or workers of a Ray cluster."""

from metarec.search.runners.processes import run_in_processes, stopping_politely
from metarec.search.runners.ray_workers import check_ray, run_on_ray
from metarec.search.runners.worker import Work

__all__ = ["Work", "check_ray", "run_in_processes", "run_on_ray", "stopping_politely"]
