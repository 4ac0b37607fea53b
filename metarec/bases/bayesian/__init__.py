"""Bayesian matrix factorisation: a Gibbs sampler, and the base recommender that folds in new users."""

from metarec.bases.bayesian.gibbs import SideInformation, gibbs_samples, implicit_features, side_information
from metarec.bases.bayesian.recommender import BayesianMFRecommender

__all__ = ["BayesianMFRecommender", "SideInformation", "gibbs_samples", "implicit_features", "side_information"]
