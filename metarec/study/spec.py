"""The spec of a study: a checked YAML file; ``--set`` can change every key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from metarec.bases import BASES, make_base
from metarec.bases.ranking import RANKING_BASES, make_ranking_base
from metarec.config import explained, fields_of
from metarec.episodes import EpisodeSettings, HeldOut
from metarec.episodes.ranking import RankingSettings
from metarec.errors import InputError, check_name, printable, shown
from metarec.evaluation.measures import Measure, measure_of
from metarec.evaluation.metrics import METAREC
from metarec.files import open_regular
from metarec.fusion import Choice, IntRange, Limits, Parameter, RealRange, Task
from metarec.fusion.rankers import RANKERS
from metarec.fusion.stackers import STACKERS
from metarec.meta import ENGINES
from metarec.model.contrasts import CONTRASTS
from metarec.plain import SPEC, are_names, assign, plain_values, without_options
from metarec.ratings.settings import ReadingSettings
from metarec.registry import Registry, suggest
from metarec.search import NETWORK, SearchSettings, parameters_of
from metarec.study.fusion_spec import FusionSpec
from metarec.study.spec_files import find_spec
from metarec.study.transfer_spec import STRATEGY, TransferSpec

__all__ = ["SIMULATED", "SIMULATED_EVENTS", "StudySpec", "load_spec", "stored_spec"]

SIMULATED, SIMULATED_EVENTS = "simulated", "simulated-events"

OF_DATA = ("domains", "target", "seed", *ReadingSettings.model_fields)
"""Keys that say how the tables are read, before the task is known."""

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TrainingSpec(_Part):
    """The outer loop."""

    epochs: Count = 60
    "The most passes over the train users."
    batch_size: Count = 128
    "Users in a step."
    patience: Count = 12
    "Epochs without progress on the validation users before it stops."
    first_order: bool = False
    "Drop the second-order part of the outer gradient."


class _Title(_Part):
    name: str = "study"
    "The name of the study, with which the default of --study-name begins."
    description: str = ""
    "One sentence for the run's page."


# The fields of the last base come first.
class StudySpec(ReadingSettings, _Title):
    """All settings of a study; only the ratings are separate."""

    task: Task | None = None
    "What is predicted: rating or ranking. By default ratings, or a ranking where the target has only events."
    domains: str | dict[str, str] = SIMULATED
    "A simulated world (simulated, or simulated-events), or name: path of each domain's table (--data NAME=PATH)."
    target: str | None = None
    "The domain of the search; a single domain is the target."
    seed: int = Field(0, ge=0, lt=1 << 32)
    "The seed of the split, the draws, the bases, the networks and the search."
    trials: Count = 20
    "The total number of trials."
    workers: int = Field(1, ge=1, le=10_000)
    "Processes that run trials."
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)
    "Seconds after which no new trial begins."
    protocol: Literal["cold", "warm"] = "cold"
    "With cold, test users are in no fit. With warm, ratings of users with other ratings are predicted (task: rating)."
    held_out: HeldOut = "random"
    "For protocol: warm, the ratings that are predicted: a random share of all, or the latest of each user."
    episodes: EpisodeSettings = EpisodeSettings()
    "How users, or for protocol: warm ratings, are split, and the sizes of support and query sets."
    ranking: RankingSettings = RankingSettings()
    "How the lists of a ranking study are made."
    bases: dict[str, dict[str, Any]] = Field(
        default_factory=lambda data: without_options(_bases(data.get("task")).builtins())
    )
    "Base recommenders: a list of names, or name: options. By default all of metarec's own."
    tune_bases: int = Field(0, ge=0, le=10_000)
    "Trials for the settings of each base, on validation users; 0 leaves the settings as they are."
    baselines: list[str] = Field(default_factory=lambda data: _baselines(data.get("task")).builtins())
    "Stackers, in ranking rankers, to compare with, which are also members of the fusion."
    cross_fit: int = Field(0, ge=0, le=100)
    "Fits of each model in the table, on parts of the train and validation users, and averaged; 0 makes one fit."
    fusion: FusionSpec = FusionSpec()
    "The fusion network."
    transfer: TransferSpec | None = None
    "With it, trials are transfer strategies. `pruner`, and folds and fractions of `episodes`, are not used."
    engine: str = "batched"
    "The engine of the meta-gradient: batched, learn2learn or higher."
    training: TrainingSpec = TrainingSpec()
    "The outer loop."
    sampler: Literal["tpe", "gp", "random"] = "tpe"
    "How configurations are drawn: tree-structured Parzen estimators, a Gaussian process, or at random."
    pruner: Literal["median", "hyperband", "wilcoxon", "none"] = "median"
    "Which trials end early: below the median, by Hyperband, or worse than the best in Wilcoxon's test over users."
    objectives: list[Literal["error", "seconds"]] = ["error"]
    "The validation error, and optionally the seconds of a prediction; both are minimised."
    warm_start: list[str] = []
    "Names of earlier studies in the same storage, on any domain, whose best configurations are tried first."
    defaults: dict[str, Any] = Field(default_factory=dict)
    "Values of trial 0 and of parameters that are not searched."
    search: dict[str, Limits] = Field(default_factory=dict)
    "Parameter: a range in place of the usual one. A range of one value fixes the parameter."

    @model_validator(mode="before")
    @classmethod
    def _loss_is_a_parameter(cls, value: Any) -> Any:
        training = value.get("training") if isinstance(value, dict) else None
        if isinstance(training, dict) and "loss" in training:
            raise InputError(
                "training.loss is now the parameter loss, which is searched; to fix it, put "
                f"search.loss={{choices: [{training['loss']}]}} in its place"
            )
        return value

    @field_validator("bases", mode="before")
    @classmethod
    def _names_are_bases(cls, value: Any) -> Any:
        return without_options(value) if are_names(value) else value

    @field_validator("defaults")
    @classmethod
    def _defaults_are_typed(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # YAML reads 1e-3 as text, so values are converted to the parameter's type.
        fusion, transfer, task = (info.data.get(name) for name in ("fusion", "transfer", "task"))
        parameters: dict[str, Parameter] = {}
        # The check of the network reports an unknown one.
        with suppress(InputError):
            parameters = _parameters(fusion, transfer, task) if fusion else {}
        typed = {}
        for name, given in value.items():
            kind = type(parameters[name].default) if name in parameters else type(given)
            try:
                # bool() of any text is True.
                typed[name] = given if kind is bool else kind(given)
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name} must be of type {kind.__name__} but got {given!r}") from None
        return typed

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_name("name", self.name)
        if not isinstance(self.domains, str):
            check_name("domains: the name of a domain", *self.domains)
        self._check_names()
        if not self.bases:
            raise InputError("bases must name at least one base recommender but is empty")
        _check_models([METAREC, *CONTRASTS], self.baselines, list(self.bases))
        self.fusion.check()
        ENGINES.check(self.engine)
        if self.transfer is not None and (self.engine != "batched" or self.training.first_order):
            raise InputError(
                "a study of transfer strategies needs engine: batched and training.first_order: false but got "
                f"{self.engine} and {str(self.training.first_order).lower()}; remove these keys"
            )
        if self.transfer is not None and self.tune_bases:
            raise InputError(
                f"a study of transfer strategies needs tune_bases: 0 but got {self.tune_bases}: its few target users "
                "do not suffice to tune bases; remove the key"
            )
        if self.cross_fit == 1 or (self.transfer is not None and self.cross_fit):
            rule = "0 or at least 2" if self.transfer is None else "0 in a study of transfer strategies"
            raise InputError(f"cross_fit must be {rule} but got {self.cross_fit}")
        if self.task == "ranking":
            self._check_ranking()
        self._check_protocol()
        if self.objectives not in (["error"], ["error", "seconds"]):
            raise InputError(f"objectives must be [error] or [error, seconds] but got {self.objectives}")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise InputError(
                f"several objectives need pruner: none, because no trial is worse in all of them, but got {self.pruner}"
            )
        self._check_parameters()
        for parameter, value in self.trial_zero.items():
            if not self.space[parameter].holds(value):
                raise InputError(
                    f"defaults.{parameter} must lie in the search range {self.space[parameter]} but is {value!r}; "
                    f"change search.{parameter} or defaults.{parameter}"
                )
        self.check_columns([] if isinstance(self.domains, str) else list(self.domains))
        return self

    def _check_names(self) -> None:
        """Check the names of bases and baselines. Before the task is settled they may be those of either."""
        tasks: list[Task] = ["rating", "ranking"] if self.task is None else [self.task]
        names = list(self.bases), self.baselines
        registries = [(_bases(task), _baselines(task)) for task in tasks]
        task = next(
            (
                task
                for task, pair in zip(tasks, registries, strict=True)
                if all(set(own) <= set(registry.names()) for own, registry in zip(names, pair, strict=True))
            ),
            tasks[0],
        )
        for own, registry in zip(names, (_bases(task), _baselines(task)), strict=True):
            for name in own:
                registry.check(name)
        for name, options in self.bases.items():
            if options:
                (make_ranking_base if task == "ranking" else make_base)(name, **options)

    def _check_ranking(self) -> None:
        if self.pruner == "wilcoxon":
            raise InputError(
                "pruner: wilcoxon compares the errors of ratings but the task is ranking; "
                "choose median, hyperband or none"
            )
        if self.episodes.draws != 1:
            raise InputError(
                f"episodes.draws must be 1 for ranking but got {self.episodes.draws}: what a user chose before a later "
                "draw would count as not relevant"
            )

    def _check_protocol(self) -> None:
        if self.protocol == "cold" and self.held_out != "random":
            raise InputError(f"held_out: {self.held_out} needs protocol: warm but the protocol is cold; set both")
        if self.protocol == "cold":
            return
        if self.task == "ranking":
            raise InputError("protocol: warm needs the task rating but the task is ranking; remove one of them")
        if self.transfer is not None:
            raise InputError("a study of transfer strategies needs protocol: cold but got warm; remove the key")
        if self.episodes.draws != 1:
            raise InputError(
                f"episodes.draws must be 1 for protocol: warm but got {self.episodes.draws}: every train rating is "
                "predicted once"
            )

    def _check_parameters(self) -> None:
        """Check the names of parameters in `search` and `defaults`, and the choices of categorical ones."""
        parameters = _parameters(self.fusion, self.transfer, self.task)
        for key in ("defaults", "search"):
            for parameter in getattr(self, key):
                if parameter not in parameters:
                    raise InputError(
                        f'{key}: unknown parameter "{parameter}" of the network {self.fusion}; '
                        f"{suggest(parameter, parameters)}"
                    )
                if parameter in self.fusion.fixed(self.task or "rating"):
                    raise InputError(
                        f"{key}.{parameter}: fusion.options.{parameter} already fixes it; remove one of them"
                    )
        for parameter, limits in self.search.items():
            usual = parameters[parameter].allowed or parameters[parameter].range
            if isinstance(usual, IntRange) and isinstance(limits, RealRange):
                raise InputError(f"search.{parameter} must be whole numbers, as first and last, but got {limits}")
            if not isinstance(usual, Choice):
                continue
            if not isinstance(limits, Choice):
                raise InputError(f"search.{parameter} must be choices among {usual} but got {limits}")
            for choice in limits.choices:
                if not usual.holds(choice):
                    near = suggest(str(choice), map(str, usual.choices))
                    raise InputError(f'search.{parameter}: unknown choice "{choice}"; {near}')

    @property
    def _searched(self) -> dict[str, Parameter]:
        usual = _parameters(self.fusion, self.transfer, self.task)
        fixed = self.fusion.fixed(self.task or "rating")
        return {name: parameter for name, parameter in usual.items() if name not in fixed}

    @property
    def space(self) -> dict[str, Limits]:
        """The range of every parameter that ``fusion.options`` does not fix."""
        return {name: self.search.get(name, usual.range) for name, usual in self._searched.items()}

    @property
    def trial_zero(self) -> dict[str, Any]:
        """The default configuration. A range of one value is its parameter's default."""
        values = {}
        for name, usual in self._searched.items():
            only = self.space[name].only()
            values[name] = self.defaults.get(name, usual.default if only is None else only)
        return values

    @property
    def measure(self) -> Measure:
        """The measure of the models. A stored spec without a task is older than tasks, and of ratings."""
        return measure_of(self.task or "rating")

    def for_task(self, task: Task) -> StudySpec:
        """The same study of this task, with the task's defaults for keys that are not given.

        Raises:
            InputError: a key does not fit the task.
        """
        if task == self.task:
            return self
        try:
            return StudySpec.model_validate({**self.model_dump(exclude_unset=True), "task": task})
        except ValidationError as error:
            raise InputError(explained(error, StudySpec)) from None

    def as_yaml(self) -> str:
        """All keys and values, as the text of a spec's file."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text

    def chosen(self, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The network of a trial and all its options."""
        return self.fusion.chosen(params, self.task or "rating")

    @property
    def search_settings(self) -> SearchSettings:
        """How trials are drawn and stopped early."""
        return SearchSettings(
            self.trials, self.sampler, self.pruner, self.training.epochs, self.seed, len(self.objectives)
        )

    @property
    def first_trials(self) -> list[dict[str, Any]]:
        """The first trials: the default configuration, and the same with each other strategy and network."""
        first = self.trial_zero
        trials = [first]
        for parameter in (STRATEGY, NETWORK):
            names = self.space.get(parameter)
            others = [name for name in names.choices if name != first[parameter]] if isinstance(names, Choice) else []
            trials += [{**first, parameter: name} for name in others]
        return trials


def load_spec(name: str, overrides: Mapping[str, Any], assignments: Sequence[str] = ()) -> StudySpec:
    """Read a spec by name or path.

    Args:
        overrides: keys that options of the command line replace, such as ``trials``. Of a part with keys of its own,
            such as ``episodes``, only the given ones are replaced.
        assignments: ``KEY=VALUE`` of ``--set``; KEY is a path such as ``training.epochs``, VALUE is read as YAML.

    Raises:
        InputError: one line that names the file or the option, the key, the rule, the value and the cure.
    """
    path = find_spec(name)
    with open_regular(path) as file:
        text = SPEC.read(file, f"{path}: the spec")
    try:
        content = plain_values(text.decode("utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not a YAML file: {shown(' '.join(str(error).split()), 300)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a spec must be a mapping of keys to values but is {type(content).__name__}")
    for key, value in overrides.items():
        own = content.get(key)
        is_part = isinstance(own, dict) and isinstance(value, Mapping) and bool(fields_of(StudySpec, [key]))
        content[key] = {**content[key], **value} if is_part else value
    for assignment in assignments:
        assign(content, assignment)
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {shown(explained(error, StudySpec), 700)}") from None
    except InputError as error:
        # The names of keys and options are the user's, and may hold any letter.
        raise InputError(f"{path}: {shown(error, 700)}") from None


def stored_spec(content: Any, study: str) -> StudySpec:
    """The spec that a storage has of a study.

    Raises:
        InputError: it breaks a rule. Another version of metarec, or another hand, has written it.
    """
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        problem = explained(error, StudySpec)
    except InputError as error:
        problem = str(error)
    raise InputError(f'the stored spec of study "{shown(study)}": {printable(problem)}; begin a new study')


def _check_models(ours: Sequence[str], baselines: Sequence[str], bases: Sequence[str]) -> None:
    """Raise InputError where two models of the test table would have one name."""
    owner = dict.fromkeys(ours, "a model of every study")
    for kind, names in (("stacker", dict.fromkeys(baselines)), ("base recommender", bases)):
        for name in names:
            if name in owner:
                raise InputError(f'the {kind} "{name}" must have a name of its own but {owner[name]} has it; rename it')
            owner[name] = f"a {kind}"


def _parameters(fusion: FusionSpec, transfer: TransferSpec | None, task: Task | None) -> dict[str, Parameter]:
    if transfer is not None:
        return transfer.parameters_of(fusion.networks, task or "rating")
    return parameters_of(fusion.networks, task or "rating")


def _bases(task: Task | None) -> Registry:
    """The base recommenders of a task."""
    return RANKING_BASES if task == "ranking" else BASES


def _baselines(task: Task | None) -> Registry:
    """The stackers of a task, in ranking the rankers."""
    return RANKERS if task == "ranking" else STACKERS
