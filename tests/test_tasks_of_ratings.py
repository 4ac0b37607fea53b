"""What predicts ratings refuses events, and learns from the rated rows of mixed feedback."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.compare.job import Job as ComparisonJob
from metarec.compare.job import run_comparison
from metarec.compare.plan import ComparisonPlan
from metarec.episodes import EpisodeSettings
from metarec.episodes.builders import build_episodes, cross_validate
from metarec.errors import InputError
from metarec.ratings import Domain, common_scale
from metarec.study.job import Job, run_study
from metarec.transfer import TransferRounds, domain_similarity
from tests.episodes.conftest import BASES, make_domain
from tests.support.studies import tiny_spec

SETTINGS = EpisodeSettings(shots=5, min_query=3, max_query=8, folds=3)
EXPLICIT = make_domain("films", prefix="f")
IMPLICIT = replace(make_domain().as_implicit(), name="shop")

ENTRANCES = {
    "study": lambda shop, folder: run_study(tiny_spec(task="rating"), {"shop": shop}, Job(folder, "a")),
    "study of transfer": lambda shop, folder: run_study(
        tiny_spec(target="films", transfer={"target_users": 6}), {"shop": shop, "films": EXPLICIT}, Job(folder, "a")
    ),
    "comparison": lambda shop, folder: run_comparison(
        ComparisonPlan("shop", ["mean"]), {"shop": shop, "films": EXPLICIT}, ComparisonJob(folder, "a")
    ),
    "episodes": lambda shop, folder: build_episodes({"shop": shop}, "shop", SETTINGS, BASES),
    "folds": lambda shop, folder: cross_validate(shop, SETTINGS, BASES, shots=[5], folds=3),
    "linked folds": lambda shop, folder: cross_validate(
        EXPLICIT, SETTINGS, BASES, shots=[5], folds=3, elsewhere={"shop": shop}
    ),
    "rounds": lambda shop, folder: TransferRounds({"shop": shop, "films": EXPLICIT}, [5]),
    "similarity": lambda shop, folder: domain_similarity(shop, EXPLICIT),
    "scale": lambda shop, folder: common_scale(shop),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_events_are_refused_before_anything_is_written(entrance, tmp_path):
    with pytest.raises(InputError, match='domain "shop" has no ratings, only events; use --task ranking') as caught:
        ENTRANCES[entrance](IMPLICIT, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_mixed_domain_is_that_of_its_rated_rows():
    explicit = make_domain()
    rng = np.random.default_rng(0)
    events = explicit.ratings.assign(item=[f"e{n}" for n in range(len(explicit.ratings))], rating=np.nan)
    rows = pd.concat([explicit.ratings, events]).iloc[rng.permutation(2 * len(events))]
    mixed = Domain("tiny", rows, explicit.scale, explicit.items, feedback="mixed")
    assert mixed.num_items > explicit.num_items
    assert mixed.rated().fingerprint() == explicit.fingerprint()
    ours, theirs = (build_episodes({"tiny": one}, "tiny", SETTINGS, BASES)["tiny"] for one in (mixed, mixed.rated()))
    assert torch.isfinite(ours.test.batch.query.targets).all()
    ours, theirs = ours.test.batch.query.predictions, theirs.test.batch.query.predictions
    assert torch.equal(torch.nan_to_num(ours), torch.nan_to_num(theirs))
    assert common_scale(mixed).span == pytest.approx(common_scale(explicit).span)
