"""Cells on disk: whole or not at all, and found again only by a comparison that would compute the same."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metarec.bases import BASES
from metarec.compare.cells import CellResult
from metarec.compare.plan import Cell, Plan
from metarec.evaluation.metrics import Scores
from metarec.files import content_key, write_whole
from metarec.fusion import NETWORKS
from metarec.ratings import Domain
from metarec.transfer import STRATEGIES

__all__ = ["CellStore", "digest_of", "plain"]

logger = logging.getLogger(__name__)

_CODE = (
    *(f"{folder}/**/*.py" for folder in ("ratings", "bases", "episodes", "fusion", "meta", "model", "transfer")),
    "evaluation/metrics.py",
    "compare/cells.py",
)
_LIBRARIES = ("lenskit", "lightgbm", "numpy", "scikit-learn", "scipy", "torch")


def digest_of(plan: Plan, domains: Mapping[str, Domain]) -> str:
    """A hash of everything that cells depend on, but for who predicts in which round.

    All numbers of shots are among it: the few users of a round have enough ratings for the largest. How many seeds
    and which numbers of known users there are is not.
    """
    facts = {
        "domains": [[name, domain.fingerprint()] for name, domain in domains.items()],
        "target": plan.target,
        "shots": list(plan.shots),
        "episodes": plan.episodes.model_dump(mode="json"),
        "bases": [[name, dict(options)] for name, options in plan.make_rounds(domains).bases.items()],
        "link_users": plan.link_users,
        "fusion": plan.fusion.model_dump(mode="json"),
        "plug-ins": [BASES.code_of(plan.make_rounds(domains).bases), NETWORKS.code_of([plan.fusion.network])],
    }
    return content_key(facts, code=_CODE, libraries=_LIBRARIES)


@dataclass(frozen=True)
class CellStore:
    """A folder with a file for each finished cell.

    Args:
        folder: made when the first cell is kept.
        digest: see :func:`digest_of`; cells of another one are not found.
    """

    folder: Path
    digest: str

    def key(self, cell: Cell) -> str:
        """By which a cell is known, here and among the recorded runs."""
        # A plug-in's code, where the strategy is one: our own is in the digest.
        code = "".join(STRATEGIES.code_of([cell.strategy]).values())
        return hashlib.sha256(f"{self.digest} {cell!r}{code}".encode()).hexdigest()[:24]

    def has(self, cell: Cell) -> bool:
        """Whether it is there; it may still turn out to be damaged."""
        return self._path(cell).exists()

    def save(self, result: CellResult) -> None:
        """Keep a finished cell."""
        record = {
            "cell": str(result.cell),
            "target": result.target,
            "scores": asdict(result.scores),
            "users": list(result.users),
            "squared": list(result.squared),
            "reasons": plain(result.reasons),
            "began": result.began,
            "seconds": result.seconds,
        }
        write_whole(self._path(result.cell), json.dumps(record).encode())

    def load(self, cell: Cell) -> CellResult | None:
        """A cell that was kept; None where it is not there or is not what was written (then it is said aloud)."""
        path = self._path(cell)
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            parts = {name: record[name] for name in ("target", "users", "squared", "reasons", "began", "seconds")}
            return CellResult(cell, scores=Scores(**record["scores"]), **parts)
        except (ValueError, KeyError, TypeError):
            logger.warning("the cell %s is damaged; it is computed again", path)
            path.unlink()
            return None

    def _path(self, cell: Cell) -> Path:
        readable = re.sub(r"[^\w-]+", "-", str(cell))[:80]
        return self.folder / f"{readable}-{self.key(cell)}.json"


def plain(value: Any) -> Any:
    """The same in values that JSON knows: no tuples, no numbers of numpy's, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
