"""How the lists of ranking episodes are made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RankingSettings"]


class RankingSettings(BaseModel):
    """The candidates of a user, and the rows that a fusion adapts on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    candidates: int = Field(50, ge=10, le=1000)
    "The best items of each base; the candidates of a user are their union."
    negatives: int = Field(4, ge=1, le=100)
    "Candidates beside each support item, a seeded draw."
    repeats: Literal["exclude", "include"] = "exclude"
    "`exclude`: new items only. `include`: the user's own items too; an own item with a later event is relevant."
    positive: float | None = Field(None, allow_inf_nan=False)
    "The lowest rating of a relevant item, in the domain's units; by default every rated item is relevant."
