"""What is learned from source domains, and its step to a target with few users."""

from metarec.transfer.sources._domain_step import LEVEL, STRENGTH, DomainStep
from metarec.transfer.sources._few import CrossFitted, deal_places
from metarec.transfer.sources._out_of_fold import squared_errors, stepped_out_of_fold
from metarec.transfer.sources._source_model import SourceModel, Sources
from metarec.transfer.sources._training import Epochs, few_users, fine_tune
from metarec.transfer.sources._transferred import TransferredModel
from metarec.transfer.sources.settings import TransferSettings

__all__ = [
    "LEVEL",
    "STRENGTH",
    "CrossFitted",
    "DomainStep",
    "Epochs",
    "SourceModel",
    "Sources",
    "TransferSettings",
    "TransferredModel",
    "deal_places",
    "few_users",
    "fine_tune",
    "squared_errors",
    "stepped_out_of_fold",
]
