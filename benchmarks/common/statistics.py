"""Paired comparisons of metarec with every baseline, over all users of all folds.

Scores. RMSE and MAE are over all query rows. metarec is trained with several seeds: its score is the mean over the
seeds, with their standard deviation. So are those of its parts: its best network alone, and itself without inner steps.
In every paired comparison a user's squared error is the mean over the seeds, and so is a user's nDCG; that is the error
to expect of one training, not that of an ensemble.

Tests. The Wilcoxon signed-rank test (two-sided) is over users: on the differences of their mean squared errors, and on
those of their nDCG. It tests whether more users are better off, and by more; the gain in RMSE is about the sum of all
errors. The verdict is "mixed" where the test is significant and the two point in opposite directions.

Correction. Holm's, over one family for each measure: every baseline and part of every set after every number of shots
of the report. That is the strictest family there is. *Better* needs the corrected p; *worse* needs only the uncorrected
one: the correction may hide a gain, never a loss.

The best baseline of a set and a number of shots is the one with the lowest RMSE on the test users themselves: the
hardest opponent, chosen with hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata, wilcoxon
from statsmodels.stats.multitest import multipletests

from metarec.evaluation.metrics import METAREC, Gain, Scores, paired_gains, scores, squared_errors

__all__ = [
    "Comparison",
    "Section",
    "SetPredictions",
    "SignedRank",
    "compare",
    "gather",
    "holm",
    "signed_rank",
    "verdict",
]

LEVEL = 0.05

# The mean of equal numbers differs from them in the last bits only; smaller differences count as zero.
_ZERO = 1e-12


@dataclass(frozen=True)
class SetPredictions:
    """The predictions for all test users of one set after one number of shots.

    Attributes:
        rows: domain, user, item, rating, and a column for each model.
        ndcg: one row a user, the same models.
        span: width of the rating scale.
        ours: metarec's columns, one for each training seed.
        baselines: the tuned combiners; bases: the single recommenders.
        parts: a model that shows what metarec's gain is made of -> its columns, one for each training seed.
    """

    rows: pd.DataFrame
    ndcg: pd.DataFrame
    span: float
    ours: Sequence[str]
    baselines: Sequence[str]
    bases: Sequence[str] = ()
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def opponents(self) -> list[str]:
        """The models that metarec is compared with: baselines and parts."""
        return [*self.baselines, *self.parts]

    @property
    def columns(self) -> dict[str, list[str]]:
        """Model -> its columns."""
        alone = {name: [name] for name in (*self.baselines, *self.bases)}
        return {METAREC: list(self.ours), **{name: list(own) for name, own in self.parts.items()}, **alone}


class SignedRank(NamedTuple):
    """A Wilcoxon test: two-sided p, and the matched-pairs rank-biserial correlation (-1..1; above 0: ours wins)."""

    p: float
    effect: float


class Comparison(NamedTuple):
    """metarec against one baseline on one measure.

    Attributes:
        difference: above 0, metarec is better; RMSE: percent, nDCG: difference of the means.
        interval: of the difference, 95 %; None for nDCG.
        p, p_holm, effect: of the signed-rank test over users.
        verdict: better, worse, mixed, or "no difference".
    """

    difference: float
    interval: tuple[float, float] | None
    p: float
    p_holm: float
    effect: float
    verdict: str


@dataclass(frozen=True)
class Section:
    """The numbers of one set after one number of shots.

    Attributes:
        scores: model -> its scores; those of metarec and of its parts are means over the seeds.
        ndcg: model -> mean over the users who have one (`n_ranked`).
        by_seed: metarec's scores and nDCG for each seed; spread: their standard deviation over the seeds.
        rmse, by_ndcg: baseline or part -> the comparison.
    """

    scores: Mapping[str, Scores]
    ndcg: Mapping[str, float]
    n_ranked: int
    by_seed: Sequence[Mapping[str, float]]
    spread: Mapping[str, float]
    baselines: Sequence[str]
    bases: Sequence[str]
    rmse: Mapping[str, Comparison]
    by_ndcg: Mapping[str, Comparison]

    @property
    def best_baseline(self) -> str:
        """The baseline with the lowest RMSE on the test users."""
        return min(self.baselines, key=lambda name: (self.scores[name].rmse, name))

    def to_json(self) -> dict[str, Any]:
        """The section as JSON values."""
        kinds = {METAREC: METAREC, **dict.fromkeys(self.baselines, "baseline"), **dict.fromkeys(self.bases, "base")}
        kinds |= {name: "part" for name in self.rmse if name not in kinds}
        ours = self.scores[METAREC]
        return {
            "n_users": ours.n_users,
            "n_ratings": ours.n_ratings,
            "n_users_with_ndcg": self.n_ranked,
            "best_baseline": self.best_baseline,
            "models": {
                name: {"kind": kinds[name], **row.values, "ndcg": self.ndcg[name]} for name, row in self.scores.items()
            },
            "metarec_by_seed": list(self.by_seed),
            "metarec_spread": dict(self.spread),
            "comparisons": {
                name: {"rmse": self.rmse[name]._asdict(), "ndcg": self.by_ndcg[name]._asdict()} for name in self.rmse
            },
        }


def gather(
    baselines: Sequence[pd.DataFrame], ours: Mapping[int, Sequence[pd.DataFrame]], on: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """One frame of all folds, and the columns in it of metarec and of its parts, one for each seed.

    Args:
        baselines: a frame for each fold; ours: seed -> frames with the columns of metarec and its parts. A part that
            some fold lacks is left out.
        on: columns that are equal in both, row by row.

    Raises:
        ValueError: the frames have different rows, so they come from different episodes.
    """
    whole = pd.concat(baselines, ignore_index=True)
    columns: dict[str, list[str]] = {}
    for seed, frames in ours.items():
        own = pd.concat(frames, ignore_index=True)
        if not own[list(on)].equals(whole[list(on)]):
            raise ValueError(f"the predictions of metarec, seed {seed}, are not for the rows of the baselines")
        for model in own.columns.drop(whole.columns.intersection(own.columns)):
            columns.setdefault(model, []).append(f"{model} {seed}")
            whole[columns[model][-1]] = own[model]
    return whole, {model: own for model, own in columns.items() if not whole[own].isna().to_numpy().any()}


def compare(sets: Mapping[Any, SetPredictions], *, seed: int = 0) -> dict[Any, Section]:
    """The numbers of every set and number of shots (the keys), corrected over all of them.

    Args:
        seed: of the bootstrap.
    """
    found = {key: _measured(one, seed) for key, one in sets.items()}
    family = [(key, name) for key, one in sets.items() for name in one.opponents]
    corrected: dict[Any, dict[str, tuple[float, float]]] = {key: {} for key in sets}
    by_error = holm([found[key].tests[name][0].p for key, name in family])
    by_rank = holm([found[key].tests[name][1].p for key, name in family])
    for (key, name), *both in zip(family, by_error, by_rank, strict=True):
        corrected[key][name] = (float(both[0]), float(both[1]))
    return {key: _section(one, found[key], corrected[key]) for key, one in sets.items()}


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p values (Holm 1979), in their order.

    >>> [round(float(value), 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected: np.ndarray = multipletests(p, method="holm")[1] if len(p) else np.empty(0)
    return corrected


def signed_rank(advantage: np.ndarray) -> SignedRank:
    """Wilcoxon's test of paired differences, above 0 where ours is better; where all are zero, p is 1.

    Zero differences are dropped, as in Wilcoxon's paper.
    """
    kept = advantage[np.abs(advantage) > _ZERO]
    if not len(kept):
        return SignedRank(1.0, 0.0)
    ranks = rankdata(np.abs(kept))
    effect = float(np.sum(ranks * np.sign(kept)) / ranks.sum())
    return SignedRank(float(wilcoxon(kept).pvalue), effect)


class _Measured(NamedTuple):
    scores: dict[str, Scores]
    ndcg: dict[str, float]
    n_ranked: int
    by_seed: list[dict[str, float]]
    gains: dict[str, Gain]
    tests: dict[str, tuple[SignedRank, SignedRank]]


def _measured(predicted: SetPredictions, seed: int) -> _Measured:
    columns, opponents = predicted.columns, predicted.opponents
    every = scores(predicted.rows, predicted.span)
    squared = _means(squared_errors(predicted.rows), columns)
    counts = predicted.rows.groupby("user", sort=False).size()
    mean_squared = squared.div(counts, axis=0)
    ranked = _means(predicted.ndcg.dropna(), columns)
    tests = {
        name: (
            signed_rank((mean_squared[name] - mean_squared[METAREC]).to_numpy()),
            signed_rank((ranked[METAREC] - ranked[name]).to_numpy()),
        )
        for name in opponents
    }
    means = predicted.ndcg.dropna().mean()
    by_seed = [{**every[name].values, "ndcg": means[name]} for name in columns[METAREC]]
    return _Measured(
        {name: _mean_scores([every[column] for column in own]) for name, own in columns.items()},
        {name: float(value) for name, value in ranked.mean().items()},
        len(ranked),
        [{measure: float(value) for measure, value in row.items()} for row in by_seed],
        paired_gains(squared[METAREC].to_numpy(), squared[opponents], seed=seed),
        tests,
    )


def _means(table: pd.DataFrame, columns: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A column for each model: the mean over its seeds."""
    return pd.DataFrame({name: table[list(own)].mean(axis=1) for name, own in columns.items()})


def _mean_scores(seeds: Sequence[Scores]) -> Scores:
    some = seeds[0]
    values = {measure: float(np.mean([own.values[measure] for own in seeds])) for measure in some.values}
    return Scores(values, some.n_users, some.n_ratings)


def _section(predicted: SetPredictions, found: _Measured, corrected: Mapping[str, tuple[float, float]]) -> Section:
    rmse, by_ndcg = {}, {}
    for name in predicted.opponents:
        gain, (by_error, by_rank) = found.gains[name], found.tests[name]
        p_error, p_rank = corrected[name]
        ahead = found.ndcg[METAREC] - found.ndcg[name]
        rmse[name] = Comparison(
            gain.percent,
            (gain.low, gain.high),
            by_error.p,
            p_error,
            by_error.effect,
            verdict(gain.percent, by_error, p_error),
        )
        by_ndcg[name] = Comparison(ahead, None, by_rank.p, p_rank, by_rank.effect, verdict(ahead, by_rank, p_rank))
    measures = found.by_seed[0]
    several = len(found.by_seed) > 1
    spread = {
        measure: float(np.std([row[measure] for row in found.by_seed], ddof=1)) if several else 0.0
        for measure in measures
    }
    return Section(
        found.scores,
        found.ndcg,
        found.n_ranked,
        found.by_seed,
        spread,
        tuple(predicted.baselines),
        tuple(predicted.bases),
        rmse,
        by_ndcg,
    )


def verdict(difference: float, test: SignedRank, p_holm: float) -> str:
    """better, worse, mixed or "no difference"; the module's docstring defines them."""
    if test.p >= LEVEL:
        return "no difference"
    if difference < 0 and test.effect < 0:
        return "worse"
    if difference > 0 and test.effect > 0:
        return "better" if p_holm < LEVEL else "no difference"
    return "mixed"
