"""Transfer from source domains to a target domain by the name of a strategy, on episodes or on rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from metarec.episodes import DomainEpisodes, Episodes
from metarec.errors import InputError, check_at_least
from metarec.model import fold_indices
from metarec.registry import suggest
from metarec.transfer.rows._row_strategies import ROW_STRATEGIES, row_errors
from metarec.transfer.rows._rows import RowSource, TargetRows, as_rows
from metarec.transfer.sources import Sources, TransferredModel, TransferSettings, few_users
from metarec.transfer.strategies import STRATEGIES

__all__ = ["CrossDomainMetaLearner"]

AUTO, SAFE = "auto", "scratch"
FOLDS = 3
"""Of the few rows, for the choice of a strategy."""

RowData = Sequence[Mapping[str, Any]]


class CrossDomainMetaLearner:
    """Transfers from source domains to a target domain with few ratings.

    Data is either episodes, for the strategies of :data:`~metarec.transfer.STRATEGIES`; or rows, a list of dicts with
    ``features`` [F] and ``rating``, on one scale for all domains. Domains of rows may have different features. Inputs
    are not changed: copies of models are trained, and no global random state is used.

    Args:
        source_domains: the names of the sources, or name -> episodes of each. With no names, any can be added.
        target_domain: the target's name.
        seed: of all random draws, >= 0.
        settings: of the fusion network, where data is episodes.

    Attributes:
        reasons: the choices of the last transfer and their grounds, as JSON values.

    Raises:
        InputError: the target is among the sources, or the seed is no integer >= 0.

    >>> rows = [{"features": [x / 10, 1 - x / 10], "rating": x / 10} for x in range(11)]
    >>> learner = CrossDomainMetaLearner(["movies"], "books")
    >>> learner.add_source_domain("movies", nn.Linear(2, 1), rows)
    >>> learner.transfer_to_target(rows, strategy="scratch", few_shot_size=5)(torch.rand(4, 2)).shape
    torch.Size([4, 1])
    """

    def __init__(
        self,
        source_domains: Sequence[str] | Mapping[str, Any],
        target_domain: str,
        *,
        seed: int = 0,
        settings: TransferSettings | None = None,
    ) -> None:
        check_at_least(0, seed=seed)
        names = [source_domains] if isinstance(source_domains, str) else list(source_domains)
        if target_domain in names:
            raise InputError(f'target_domain must not be one of the sources but "{target_domain}" is')
        self.source_domains = names
        self.target_domain = target_domain
        self.seed = seed
        self.settings = settings
        self.reasons: dict[str, Any] = {}
        self._rows: dict[str, RowSource] = {}
        self._episodes: dict[str, DomainEpisodes] = {}
        self._sources: Sources | None = None
        if isinstance(source_domains, Mapping):
            for name, given in source_domains.items():
                if isinstance(given, DomainEpisodes):
                    self.add_source_domain(name, None, given)

    def add_source_domain(self, name: str, model: nn.Module | None, training_data: RowData | DomainEpisodes) -> None:
        """Add a source, or replace the one with this name.

        Args:
            model: from features [B, F] to [B, 1], trained on these rows. It is not used with episodes: strategies
                train the networks of `settings` on them.

        Raises:
            InputError: an unknown name, a model that does not fit the rows, or wrong data.
        """
        if name == self.target_domain or (self.source_domains and name not in self.source_domains):
            raise InputError(f'unknown source domain "{name}"; {suggest(name, self.source_domains)}')
        if isinstance(training_data, DomainEpisodes):
            self._episodes[name] = training_data
            self._sources = None
            return
        rows = as_rows(training_data, f'training_data of "{name}"')
        if not isinstance(model, nn.Module):
            raise InputError(f'model of "{name}" must be a torch.nn.Module but got {type(model).__name__}')
        own = copy.deepcopy(model).eval()
        try:
            row_errors(own, rows)
        except (RuntimeError, InputError) as error:
            width = rows.features.shape[1]
            raise InputError(f'model of "{name}" must map features [B, {width}] to [B, 1]: {error}') from error
        self._rows[name] = RowSource(own, rows)

    def transfer_to_target(
        self,
        target_data: RowData | Episodes | DomainEpisodes,
        strategy: str = "feature_alignment",
        few_shot_size: int = 10,
    ) -> nn.Module | TransferredModel:
        """A model of the target.

        Args:
            target_data: rows, with all features but only the ratings of a random few; or episodes, with only a random
                few (train) users.
            strategy: "feature_alignment", "model_agnostic", "gradient_based", "prototype_based", "scratch", or "auto",
                which on rows chooses by cross-validation among the few; it leaves "scratch" only for a strategy that
                is clearly better.
            few_shot_size: the number of rows or users whose ratings are used; all, where there are fewer.

        Returns:
            for rows a module from features [B, F] to [B, 1] in eval mode; for episodes a
            :class:`~metarec.transfer.TransferredModel`.

        Raises:
            InputError: an unknown strategy, no source where one is needed, no data, or a number below 1.
        """
        check_at_least(1, few_shot_size=few_shot_size)
        if isinstance(target_data, DomainEpisodes | Episodes):
            users = target_data.train if isinstance(target_data, DomainEpisodes) else target_data
            return self._from_episodes(few_users(users, few_shot_size, self.seed), strategy)
        names = [*ROW_STRATEGIES, AUTO]
        if strategy not in names:
            raise InputError(f'unknown strategy "{strategy}"; {suggest(strategy, names)}')
        if not self._rows and strategy not in (SAFE, AUTO):
            raise InputError(f'strategy "{strategy}" needs at least one source domain but got none; add_source_domain')
        rows = as_rows(target_data, "target_data")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(len(rows.ratings), generator=generator)[:few_shot_size].sort().values
        target = TargetRows(rows.select(drawn), rows.features)
        chosen = self._choose(target) if strategy == AUTO else strategy
        if strategy != AUTO:
            self.reasons = {"strategy": strategy}
        return self._learn(chosen, target).eval()

    def _from_episodes(self, few: Episodes, strategy: str) -> TransferredModel:
        # The source models are kept for the next strategy.
        self._sources = Sources(self._episodes) if self._sources is None else self._sources
        model: TransferredModel = STRATEGIES.get(strategy)(self.settings, seed=self.seed).fit(self._sources, few)
        self.reasons = {"strategy": strategy, **model.reasons()}
        return model

    def _learn(self, strategy: str, target: TargetRows) -> nn.Module:
        # Networks with dropout draw from the global generator, so its state is restored.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return ROW_STRATEGIES[strategy](self._rows, target, self.seed)

    def _choose(self, target: TargetRows) -> str:
        """The strategy with the smallest out-of-fold errors, if they are clearly smaller than those of the safe one."""
        count = len(target.few.ratings)
        names = list(ROW_STRATEGIES) if self._rows and count > 1 else [SAFE]
        errors = {name: np.zeros(count) for name in names}
        for others, part in fold_indices(count, FOLDS, self.seed) if len(names) > 1 else ():
            for name in names:
                model = self._learn(name, target.select(others)).eval()
                errors[name][part.numpy()] = row_errors(model, target.few.select(part)).numpy()
        best = min(names, key=lambda name: (float(errors[name].sum()), name != SAFE, name))
        gains = errors[SAFE] - errors[best]
        chosen = best if gains.sum() > gains.std() * np.sqrt(count) else SAFE
        rmse = {name: float(np.sqrt(own.mean())) for name, own in errors.items()}
        why = f"{best} errs least on rows left out"
        if chosen != best:
            why += f", but not by more than a standard error less than {SAFE}"
        if len(names) == 1:
            rmse, why = {}, "there is no source, or a single row"
        self.reasons = {"strategy": chosen, "rmse": rmse, "why": why}
        return chosen
