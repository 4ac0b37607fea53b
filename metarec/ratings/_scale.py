"""Rating scales: inferred from ratings, given, and common to several domains."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings._domain import Domain, RatingScale

__all__ = ["as_scale", "common_scale", "infer_scale"]

CONVENTIONAL = (
    RatingScale(0, 1),
    RatingScale(-1, 1),
    RatingScale(1, 5),
    RatingScale(0.5, 5),
    RatingScale(0, 5),
    RatingScale(1, 10),
    RatingScale(0, 10),
    RatingScale(-10, 10),
    RatingScale(0, 100),
)
"""From narrow to wide."""

WIDE = 10.0
"""The width above which the ratings must fill half of a scale, because a wide scale holds almost any ratings."""

_NUMBER = r"\s*([-+]?[0-9]*\.?[0-9]+)\s*"
_WRITTEN = re.compile(rf"[\[(]?{_NUMBER}(?:,|\.\.){_NUMBER}[\])]?")


def infer_scale(ratings: np.ndarray | pd.Series | Sequence[float]) -> RatingScale:
    """The narrowest conventional scale that holds these ratings; without one, their minimum and maximum.

    Half stars give 0.5..5 even without the lowest ratings, because scales with halves begin at a half.

    >>> str(infer_scale([2, 5, 3]))
    '1..5'
    >>> str(infer_scale([1.5, 5, 3]))
    '0.5..5'
    >>> str(infer_scale([-9.95, 9.9]))
    '-10..10'

    Raises:
        InputError: no ratings, ratings that are not finite, or all equal ones.
    """
    values = np.asarray(ratings, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise InputError("a scale can be inferred from finite ratings only; give the scale")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(f"no scale can be inferred because all ratings are {low:g}; give the scale, or other ratings")
    half_stars = low >= 0.5 and high <= 5 and np.all(2 * values == np.floor(2 * values))
    if half_stars and np.any(values != np.floor(values)):
        return RatingScale(0.5, 5)
    for scale in CONVENTIONAL:
        fills = scale.span <= WIDE or high - low >= scale.span / 2
        if scale.low <= low and high <= scale.high and fills:
            return scale
    return RatingScale(low, high)


def as_scale(scale: RatingScale | Sequence[float] | str) -> RatingScale:
    """A scale in any accepted form: a RatingScale, ``(1, 5)``, ``"1,5"`` or ``"1..5"``.

    Raises:
        InputError: anything else.
    """
    if isinstance(scale, RatingScale):
        return scale
    bounds: Sequence[object] = ()
    if isinstance(scale, str):
        if written := _WRITTEN.fullmatch(scale):
            bounds = written.groups()
    elif isinstance(scale, Sequence):
        bounds = scale
    try:
        low, high = (float(bound) for bound in bounds)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a scale must be two numbers, as in 1..5, but got {shown(scale)}") from error
    return RatingScale(low, high)


def common_scale(domain: Domain) -> RatingScale:
    """A scale that makes ratings of different domains comparable: the mean plus and minus three standard deviations.

    On their own scales, equal opinions can lie at different distances from the middle: 4 of 5 for a book and 7.4 of 10
    for a film. Where all ratings are nearly equal, the width is that of the domain's own scale.

    >>> ratings = pd.DataFrame({"user": ["a", "b"], "item": ["x", "x"], "rating": [3.0, 5.0]})
    >>> str(common_scale(Domain("books", ratings, RatingScale(1, 5))))
    '1..7'
    """
    domain = domain.rated()
    ratings = domain.ratings["rating"].to_numpy(dtype=float)
    if not len(ratings):
        raise InputError(f'domain "{domain.name}" has no rating to make a scale of')
    middle, spread = float(ratings.mean()), float(ratings.std())
    half = 3 * spread if spread > 1e-6 * domain.scale.span else domain.scale.span / 2
    return RatingScale(middle - half, middle + half)
