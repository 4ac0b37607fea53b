"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As under ``make test``: small products gain nothing from a second one. Whatever a test sets is put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
