"""The fusion: meta-learned networks and stackers with weights that are chosen on validation users."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, model_validator

from metarec.bases import Learned, check_finite
from metarec.config import Config
from metarec.episodes import DomainEpisodes, Episodes, FusionInputs
from metarec.errors import InputError, check_name, shown
from metarec.fusion.rankers import RANKERS, Ranker
from metarec.fusion.ranks import RelevantRanks, ndcg, standard_scores
from metarec.fusion.stackers import STACKERS, Stacker
from metarec.meta import AdaptedNetwork, MetaLearner, NetworkConfig, Shape, judge_of
from metarec.model.averaged import MeanAdapted, MeanNetwork, MeanStacker
from metarec.registry import Registry

__all__ = [
    "AdaptedFusion",
    "Fusion",
    "FusionConfig",
    "Stacked",
    "fit_stacker",
    "outputs_of",
    "stackers_of",
    "user_parts",
]

Task = Literal["rating", "ranking"]

Stacked: TypeAlias = Stacker | Ranker | MeanStacker
"""A member without meta-learning."""

Trained: TypeAlias = MetaLearner | MeanNetwork
"""A member that is meta-learned."""

STEPS, BAGS = 15, 10
"""Of the selection of a ranking fusion's members (:func:`metarec.fusion.blend.bagged_greedy_weights`)."""


def stackers_of(task: Task) -> Registry:
    """The stackers of rating, or the rankers."""
    return RANKERS if task == "ranking" else STACKERS


class FusionConfig(Config):
    """The members of a fusion. A study proposes a fusion of the networks of its best trials.

    Raises:
        InputError: no member, an unknown name, a name that breaks the rule of names, or a network and a stacker
            of the same name.
    """

    task: Task = "rating"
    "What is predicted: ratings, or an order of candidates."
    networks: dict[str, NetworkConfig] = Field(default_factory=lambda: {"network": NetworkConfig()})
    "Name of a member: the network that is meta-learned."
    stackers: tuple[str, ...] = Field(default_factory=lambda data: tuple(stackers_of(data["task"]).builtins()))
    "Names of the stackers, in ranking of the rankers, among the members."
    weights: Literal["validation", "equal"] = "validation"
    "Convex weights with the smallest squared error, in ranking a high nDCG@10, on validation users, or equal weights."
    cross_fit: int = Field(0, ge=0)
    """Fits of each member, which are averaged. Each is stopped and tuned on another part of the train and validation
    users, and learns from the others; the weights come from the predictions of these parts. 0 makes one fit, which is
    stopped, tuned and weighted on the validation users."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [*self.networks, *self.stackers]
        if not names:
            raise InputError("a fusion must have at least one network or stacker but has none")
        check_name("networks: the name of a network", *self.networks)
        for name in self.stackers:
            stackers_of(self.task).check(name)
        if self.cross_fit == 1:
            raise InputError("cross_fit must be 0 or at least 2 but got 1")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f'the members of a fusion must have different names but "{twice[0]}" is there twice')
        return self


class Fusion:
    """A convex combination of meta-learned networks and stackers.

    Networks and stackers make different errors, so that their combination is better than each
    (:func:`metarec.fusion.blend.convex_weights`). In ranking it combines the members' standard scores over the user's
    candidates, because their scores have no common unit, and the weights come from greedy
    selections (:func:`metarec.fusion.blend.bagged_greedy_weights`). Members with a weight of 0 are not evaluated.

    Args:
        config: the members and how they are weighted. seed: of every random draw, >= 0.

    Attributes:
        networks: name -> the meta-learned network, with `cross_fit` a mean of several. stackers: name -> the fitted
            stacker, or the mean.
        weights: name -> the weight of each member; their sum is 1.

    >>> from metarec.episodes import EpisodeSettings, build_episodes
    >>> from metarec.ratings import simulate_domains
    >>> domains = simulate_domains(num_users=60, num_items=60, ratings_per_user=20)
    >>> settings = EpisodeSettings(shots=5, folds=2)
    >>> episodes = build_episodes({"movies": domains["movies"]}, "movies", settings, {"bias": {}, "item-knn": {}})
    >>> config = FusionConfig(networks={"gated": NetworkConfig(epochs=2)}, stackers=("mean", "ridge"))
    >>> fusion = Fusion(config).fit(episodes["movies"])
    >>> list(fusion.weights), round(sum(fusion.weights.values()), 6)
    (['gated', 'mean', 'ridge'], 1.0)
    >>> predictions = fusion.predict(episodes["movies"].test)
    >>> predictions.shape == episodes["movies"].test.batch.query.mask.shape
    True
    """

    def __init__(self, config: FusionConfig | None = None, *, seed: int = 0) -> None:
        self.config = FusionConfig() if config is None else config
        self.seed = seed
        self.networks: dict[str, Trained] = {}
        self.stackers: dict[str, Stacked] = {}
        self.weights: dict[str, float] = {}
        self._shape: Shape | None = None
        self._judged: _Judged | None = None

    def fit(
        self,
        episodes: DomainEpisodes | Sequence[DomainEpisodes],
        *,
        beside: Sequence[Episodes] = (),
        networks: Mapping[str, Trained] | None = None,
        stackers: Mapping[str, Stacked] | None = None,
    ) -> Self:
        """Train on train users; stop, choose settings and weights on validation users. Test users are not used.

        With `cross_fit`, train and validation users are one group, in parts.

        Args:
            episodes: of one domain, or of several for joint training.
            beside: further episodes to train on.
            networks: members that are trained already, by name, from a fusion of the same episodes, seed and
                `cross_fit`; the others are trained here. stackers: the same.

        Raises:
            InputError: episodes of another task than the configuration's.
        """
        domains = list(episodes) if isinstance(episodes, Sequence) else [episodes]
        train = [*(domain.train for domain in domains), *beside]
        validation = [domain.validation for domain in domains]
        self._check_task(*train, *validation)
        self._shape = Shape.of(train[0].batch)
        given = networks or {}, stackers or {}
        if self.config.cross_fit:
            self._fit_parts(domains, beside, *given)
        else:
            self._fit_members(train, validation, *given)
            held_out = validation[0] if len(validation) == 1 else Episodes.joined(validation)
            self._judged = _Judged(held_out)
        self.weights = self._judged_weights()
        return self

    def _fit_members(
        self,
        train: Sequence[Episodes],
        validation: Sequence[Episodes],
        networks: Mapping[str, Trained],
        stackers: Mapping[str, Stacked],
    ) -> None:
        batches = [one.batch for one in train], [one.batch for one in validation]
        judge = judge_of(validation)
        self.networks = {
            name: networks[name] if name in networks else config.fit(*batches, seed=self.seed, judge=judge).learner
            for name, config in self.config.networks.items()
        }
        together = [one[0] if len(one) == 1 else Episodes.joined(one) for one in (train, validation)]
        self.stackers = {
            name: stackers[name] if name in stackers else fit_stacker(name, *together, seed=self.seed)
            for name in self.config.stackers
        }

    def _fit_parts(
        self,
        domains: Sequence[DomainEpisodes],
        beside: Sequence[Episodes],
        networks: Mapping[str, Trained],
        stackers: Mapping[str, Stacked],
    ) -> None:
        """Fit the members once for each part of the users. The fit that did not learn from a part predicts it.

        A user of a part is held out in every domain, and in the episodes beside them.
        """
        together = [Episodes.joined([domain.train, domain.validation]) for domain in domains]
        fits, parts, members = [], [], []
        for place, users in enumerate(user_parts(together, self.config.cross_fit, self.seed)):
            learned = [one for one in (_of_users(own, users, False) for own in (*together, *beside)) if len(one)]
            held_out = [one for one in (_of_users(own, users, True) for own in together) if len(one)]
            fit = Fusion(self.config.model_copy(update={"cross_fit": 0}), seed=self.seed)
            own_networks = {name: _fit_at(mean, place) for name, mean in networks.items()}
            own_stackers = {name: _fit_at(mean, place) for name, mean in stackers.items()}
            fit._fit_members(learned, held_out, own_networks, own_stackers)
            fits.append(fit)
            parts.append(held_out[0] if len(held_out) == 1 else Episodes.joined(held_out))
            members.append(fit.members(parts[-1]))
        networks_of: list[dict[str, Any]] = [fit.networks for fit in fits]
        self.networks = {name: MeanNetwork([own[name] for own in networks_of]) for name in self.config.networks}
        self.stackers = {name: MeanStacker([fit.stackers[name] for fit in fits]) for name in self.config.stackers}
        self._judged = _Judged(Episodes.joined(parts), _joined_members(members))

    def part(self, names: Sequence[str], weights: Literal["validation", "equal"] = "validation") -> Fusion:
        """A fusion of some of the members as they are, with weights of its own from the same users.

        Raises:
            RuntimeError: the fusion was not fitted in this process.
        """
        if self._judged is None:
            raise RuntimeError("the fusion was not fitted here, so there are no predictions to weigh its members by")
        networks = {name: config for name, config in self.config.networks.items() if name in names}
        stackers = tuple(name for name in self.config.stackers if name in names)
        kept = {"networks": networks, "stackers": stackers, "weights": weights}
        other = Fusion(self.config.model_copy(update=kept), seed=self.seed)
        other.networks = {name: self.networks[name] for name in networks}
        other.stackers = {name: self.stackers[name] for name in stackers}
        judged = self._judged.members
        members = {name: judged[name] for name in (*networks, *stackers)} if judged else None
        other._shape, other._judged = self._shape, _Judged(self._judged.users, members)
        other.weights = other._judged_weights()
        return other

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale, after adaptation to the support rows.

        In ranking they are scores of the candidates, higher is better, on a scale of their own; 0 in padding.
        """
        return self.adapt(episodes.batch.support).predict(episodes)

    def adapt(self, support: FusionInputs) -> AdaptedFusion:
        """The fusion with its networks adapted to the support rows of T users."""
        used = {name: learner for name, learner in self.networks.items() if self.weights[name] > 0}
        return AdaptedFusion(self, {name: learner.adapt(support) for name, learner in used.items()})

    def members(self, episodes: Episodes) -> dict[str, np.ndarray]:
        """Member -> [T, N] its own predictions of the query rows on the unit scale; also of members without weight.

        In ranking they are standard scores over the user's candidates; 0 in padding.
        """
        networks = {name: learner.adapt(episodes.batch.support) for name, learner in self.networks.items()}
        return self._outputs(networks, self.stackers, episodes)

    def combine(self, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """[T, N] the weighted sum of the members' predictions."""
        total = sum(weight * members[name] for name, weight in self.weights.items() if weight > 0)
        return np.asarray(total)

    def with_networks(self, networks: Mapping[str, Trained]) -> Fusion:
        """A copy with other networks under the same names, and the same stackers and weights."""
        other = copy.copy(self)
        other.networks, other._judged = {**self.networks, **networks}, None
        return other

    def used(self) -> Fusion:
        """The same fusion without the members whose weight is 0."""
        weights = {name: weight for name, weight in self.weights.items() if weight > 0}
        networks = {name: config for name, config in self.config.networks.items() if name in weights}
        names = tuple(name for name in self.config.stackers if name in weights)
        smaller = Fusion(self.config.model_copy(update={"networks": networks, "stackers": names}), seed=self.seed)
        smaller.networks = {name: self.networks[name] for name in networks}
        smaller.stackers = {name: self.stackers[name] for name in names}
        smaller.weights, smaller._shape = weights, self._shape
        return smaller

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`restore` needs.

        Returns:
            ``config``, ``seed``, ``shape``, ``weights`` and ``paths`` as JSON values; ``networks`` and ``stackers``
            as arrays by name, for each member.

        Raises:
            RuntimeError: the fusion is not fitted.
            InputError: a plug-in's stacker without ``state``.
        """
        if self._shape is None:
            raise RuntimeError("the fusion is not fitted; call fit(episodes) first")
        return {
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "shape": list(self._shape),
            "weights": dict(self.weights),
            # Engines round differently on different paths, and the choice needs users: it must not be made anew.
            "paths": {name: learner.path for name, learner in self.networks.items()},
            "networks": {
                name: {key: _array(tensor) for key, tensor in learner.state_dict().items()}
                for name, learner in self.networks.items()
            },
            "stackers": {name: stacker.state() for name, stacker in self.stackers.items()},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The fusion that returned this state.

        Raises:
            InputError: weights that are not convex or not those of the members, a network's arrays that do not fit its
                options or are not finite, or a stacker's state that breaks a rule.
        """
        fusion = cls(FusionConfig.model_validate(state["config"]), seed=state["seed"])
        fusion._shape = Shape(*state["shape"])
        members = {*fusion.config.networks, *fusion.config.stackers}
        weights = dict(state["weights"])
        if set(weights) != members or min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
            raise InputError(f"a fusion must have a weight >= 0 for each member, with the sum 1, but has {weights}")
        for name, config in fusion.config.networks.items():
            arrays: Mapping[str, Learned] = state["networks"][name]
            fits = fusion.config.cross_fit
            learner = _learner(f"the network {name}", config, fusion._shape, fusion.seed, fits, arrays)
            paths = state["paths"][name]
            if fits != (len(paths) if isinstance(paths, list) else 0):
                raise InputError(
                    f"the network {name} must have a path for each of its {fits or 1} fits but has {paths}"
                )
            learner.path = paths
            fusion.networks[name] = learner.eval()
        fusion.stackers = {
            name: fusion._unfitted(name).restore(state["stackers"][name]) for name in fusion.config.stackers
        }
        fusion.weights = weights
        return fusion

    def _unfitted(self, name: str) -> Stacked:
        """A stacker of the fusion before its state is restored."""
        make = stackers_of(self.config.task).get(name)
        fits = self.config.cross_fit
        stacker: Stacked = MeanStacker([make() for _ in range(fits)]) if fits else make()
        return stacker

    def _outputs(
        self, networks: Mapping[str, AdaptedNetwork | MeanAdapted], stackers: Mapping[str, Stacked], episodes: Episodes
    ) -> dict[str, np.ndarray]:
        """Member -> [T, N], see :meth:`members`."""
        self._check_task(episodes)
        query = episodes.batch.query
        stacked = {name: stacker.predict(episodes) for name, stacker in stackers.items()}
        scores = {name: outputs_of(network, query, self.config.task) for name, network in networks.items()} | stacked
        if self.config.task == "rating":
            return scores
        return {name: standard_scores(own, query.mask.numpy()) for name, own in scores.items()}

    def _judged_weights(self) -> dict[str, float]:
        if self.config.weights == "equal":
            names = [*self.networks, *self.stackers]
            return dict.fromkeys(names, 1 / len(names))
        assert self._judged is not None, "members are fitted first"
        users, members = self._judged
        if members is None:
            self._judged = _Judged(users, members := self.members(users))
        return self._weigh(users, members)

    def _weigh(self, validation: Episodes, members: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The weights that suit these users, from the members' predictions for them, [T, N] each."""
        # It imports scipy's optimizers, which nothing needs before the end of a search.
        from metarec.fusion.blend import bagged_greedy_weights, convex_weights

        names = [*self.networks, *self.stackers]
        query = validation.batch.query
        targets, mask, relevant = query.targets.numpy(), query.mask.numpy(), validation.relevant
        predicted = [members[name] for name in names]
        if relevant is None:
            weights = convex_weights(np.stack([own[mask] for own in predicted], axis=1), targets[mask])
        else:
            value = partial(_ndcg_of, targets=targets, mask=mask, relevant=relevant)
            weights = bagged_greedy_weights(np.stack(predicted), value, steps=STEPS, bags=BAGS, seed=self.seed)
        return dict(zip(names, weights.tolist(), strict=True))

    def _check_task(self, *several: Episodes) -> None:
        for episodes in several:
            if episodes.task != self.config.task:
                raise InputError(f"a fusion for {self.config.task} needs such episodes but got some of {episodes.task}")


class _Judged(NamedTuple):
    """The users that choose the weights, and each member's predictions for them, [T, N], once they are needed."""

    users: Episodes
    members: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True)
class AdaptedFusion:
    """A fusion whose networks are adapted to some users, for repeated predictions for these users."""

    fusion: Fusion
    networks: Mapping[str, AdaptedNetwork | MeanAdapted]

    def predict(self, episodes: Episodes) -> np.ndarray:
        """[T, N] predictions of the query rows on the unit scale.

        Args:
            episodes: of the users that the networks were adapted to.
        """
        fusion = self.fusion
        used = {name: own for name, own in fusion.stackers.items() if fusion.weights[name] > 0}
        return fusion.combine(fusion._outputs(self.networks, used, episodes))


def user_parts(domains: Sequence[Episodes], count: int, seed: int) -> list[frozenset[str]]:
    """The users of the episodes of several domains in `count` parts. A user is in one part, whatever the domain.

    Raises:
        InputError: the first domain has fewer than two users for each part.
    """
    first = set(domains[0].users)
    if len(first) < 2 * count:
        raise InputError(
            f"cross_fit: {count} needs at least {2 * count} train and validation users but there are {len(first)}"
        )
    others = {user for one in domains[1:] for user in one.users} - first
    rng = np.random.default_rng([seed, 7])
    # The users of the first domain are dealt first, so that it is in each part.
    order = [user for group in (first, others) for user in rng.permutation(np.array(sorted(group), dtype=object))]
    return [frozenset(order[place::count]) for place in range(count)]


def _of_users(episodes: Episodes, users: frozenset[str], inside: bool) -> Episodes:
    """The episodes of these users, or of all others."""
    chosen = np.array([(user in users) == inside for user in episodes.users], dtype=bool)
    return episodes.select(torch.from_numpy(np.flatnonzero(chosen)))


def _joined_members(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Member -> its predictions for the users of all parts, in order; [T, N] with the largest N."""
    width = max(own.shape[1] for part in parts for own in part.values())
    return {
        name: np.concatenate([np.pad(part[name], ((0, 0), (0, width - part[name].shape[1]))) for part in parts])
        for name in parts[0]
    }


def _fit_at(mean: Any, place: int) -> Any:
    """One fit of a member that was fitted several times."""
    return mean.fits[place]


def _built(config: NetworkConfig, shape: Shape, seed: int, fits: int) -> Trained:
    """The untrained learner of a configuration, or the mean of several."""
    return MeanNetwork([config.build(shape, seed) for _ in range(fits)]) if fits else config.build(shape, seed)


def _learner(
    whose: str, config: NetworkConfig, shape: Shape, seed: int, fits: int, arrays: Mapping[str, Learned]
) -> Trained:
    """The learner of a configuration with these weights."""
    with torch.device("meta"):
        # Without memory: options can ask for more than there is.
        expected = {key: list(tensor.shape) for key, tensor in _built(config, shape, seed, fits).state_dict().items()}
    found = {key: list(np.shape(array)) for key, array in arrays.items()}
    if found != expected:
        raise InputError(f"{whose} must have weights of the shapes {shown(expected, 200)} but has {shown(found, 200)}")
    check_finite(whose, arrays)
    learner = _built(config, shape, seed, fits)
    learner.load_state_dict({key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()})
    return learner


def fit_stacker(name: str, train: Episodes, validation: Episodes, *, seed: int) -> Any:
    """The stacker of this name, in ranking the ranker, fitted on train users and tuned on validation users."""
    return stackers_of(train.task).get(name)().fit(train, validation, seed=seed)


def outputs_of(network: AdaptedNetwork | MeanAdapted, query: FusionInputs, task: Task) -> np.ndarray:
    """[T, N] the predictions of an adapted network, in [0, 1] for ratings."""
    if isinstance(network, MeanAdapted):
        return _array(network.predict(query)) if task == "rating" else network.scores(query)
    # Scores of a list have no bounds, and clipped ones would be equal.
    return _array(network.predict(query) if task == "rating" else network.fuse(query).prediction)


def _ndcg_of(scores: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return ndcg(RelevantRanks.of(scores, targets, mask, relevant))


def _array(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
