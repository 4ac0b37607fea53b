"""Models of the source domains, and their first adaptation step to a target with few users."""

from metarec.transfer.sources._domain_step import DomainStep, corrections, mean_deviations, out_of_fold
from metarec.transfer.sources._few_users import CrossFitted, few_users
from metarec.transfer.sources._settings import TransferSettings
from metarec.transfer.sources._source_model import SourceModel, Sources, TransferredModel
from metarec.transfer.sources._training import best_epoch, fine_tune

__all__ = [
    "CrossFitted",
    "DomainStep",
    "SourceModel",
    "Sources",
    "TransferSettings",
    "TransferredModel",
    "best_epoch",
    "corrections",
    "few_users",
    "fine_tune",
    "mean_deviations",
    "out_of_fold",
]
