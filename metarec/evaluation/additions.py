"""What meta-learning, the inner loop and the sources' models add, as numbers and as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from metarec.evaluation.measures import Measure
from metarec.evaluation.metrics import Gain
from metarec.model.contrasts import NO_INNER_LOOP, STACK

__all__ = ["Additions"]


class Additions(NamedTuple):
    """The parts of metarec's gain that networks and their adaptation add, on the test users of one domain.

    Attributes:
        networks: metarec's gain over the same combination without networks. None without stackers.
        inner_loop: metarec's gain over the same without inner steps.
        sources: the proposed strategy's gain over the few users' stackers without the sources' models. Only of a study
            of transfer, which has neither of the others.

    >>> from metarec.evaluation.measures import RATING
    >>> Additions.of({"stack": Gain(0.3, -0.1, 0.6)}).text(RATING).partition(", by ")[2]
    '+0.30 % [-0.10, +0.60]: not significant.'
    """

    networks: Gain | None = None
    inner_loop: Gain | None = None
    sources: Gain | None = None

    @classmethod
    def of(cls, gains: Mapping[str, Gain], *, transfer: bool = False) -> Additions:
        """From metarec's gains over the other models of a study, or of a study of transfer."""
        return cls(sources=gains.get(STACK)) if transfer else cls(gains.get(STACK), gains.get(NO_INNER_LOOP))

    def to_json(self, measure: Measure) -> dict[str, Any]:
        """The gains and the sentences as JSON values."""
        gains = {part: gain and gain._asdict() for part, gain in self._asdict().items()}
        return {**gains, "text": self.text(measure)}

    def text(self, measure: Measure) -> str:
        """A sentence for each part."""
        parts = []
        if self.sources is not None:
            without = "the mixture of the few users' stackers without the sources' models"
            parts.append(_sentence(measure, "Transfer", STACK, without, self.sources))
        if self.networks is not None:
            parts.append(
                _sentence(measure, "Meta-learning", STACK, "the same combination without networks", self.networks)
            )
        if self.inner_loop == Gain(0.0, 0.0, 0.0):
            parts.append("The inner loop adds nothing, because no network of the combination takes an inner step.")
        elif self.inner_loop is not None:
            without = "the same combination of networks without inner steps"
            parts.append(_sentence(measure, "The inner loop", NO_INNER_LOOP, without, self.inner_loop))
        return " ".join(parts)


def _sentence(measure: Measure, what: str, opponent: str, meaning: str, gain: Gain) -> str:
    significance = {"better": "significant", "worse": "significantly worse"}.get(gain.verdict, "not significant")
    return f"{what} {measure.improves} of {opponent}, {meaning}, by {gain}: {significance}."
