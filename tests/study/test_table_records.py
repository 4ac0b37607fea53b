"""The rows of a study's table in MLflow."""

from types import SimpleNamespace

from metarec.evaluation.additions import Additions
from metarec.evaluation.measures import RANKING
from metarec.evaluation.metrics import Gain
from metarec.study.records import record_table
from metarec.tracking import Run, StudyRun


class Kept(StudyRun):
    """Keeps the metrics of each row."""

    def __init__(self):
        self.rows = {}

    def start_row(self, row):
        kept = Run()
        kept.log_metrics = lambda metrics, step=0: self.rows.update({row.params["model"]: metrics})
        return kept


def test_a_model_without_a_gain_in_percent_has_none_in_mlflow():
    """Over an nDCG of 0 there is no gain in percent, which is not a gain of 0."""
    scores = {name: SimpleNamespace(values={"ndcg@10": value}, n_users=3) for name, value in VALUES.items()}
    gains = {"stack": Gain(25.0, 5.0, 45.0)}
    outcome = SimpleNamespace(
        scores=scores, gains=gains, measure=RANKING, additions=Additions(), best_first=lambda: list(scores.items())
    )
    result = SimpleNamespace(
        test={"shop": outcome}, target="shop", measure=RANKING, ended=[], engines=[], best=None, shown=lambda trial: 0.3
    )
    run = Kept()
    record_table(run, result)
    found = {model: metrics.get("metarec_gain_percent") for model, metrics in run.rows.items()}
    assert found == {"metarec": 0.0, "stack": 25.0, "popularity": None}


VALUES = {"metarec": 0.25, "stack": 0.2, "popularity": 0.0}
