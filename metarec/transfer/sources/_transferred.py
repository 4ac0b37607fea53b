"""What a strategy makes for a target domain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from metarec.episodes import Episodes

__all__ = ["TransferredModel"]


class TransferredModel(ABC):
    """What a strategy made for a target domain."""

    @abstractmethod
    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows of the target's users, on the unit scale, in [0, 1]."""

    def reasons(self) -> dict[str, Any]:
        """What was chosen and why, as values that JSON knows."""
        return {}
