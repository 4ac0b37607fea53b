"""The part of a spec for the fusion network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from metarec.errors import InputError
from metarec.fusion import NETWORKS, Choice, FusionNetwork, Task
from metarec.search import NETWORK, named_parameters

__all__ = ["FusionSpec"]


class FusionSpec(BaseModel):
    """The fusion network, and its options that are not searched."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    network: str | Choice = "gated"
    "Name of a fusion network, or choices: [NAME, ...] for a search among several, each with its own parameters."
    options: dict[str, Any] = Field(default_factory=dict)
    "Arguments of its constructor, by network where there are several. An argument given here is not searched."

    @property
    def networks(self) -> list[str]:
        """The network, or those that are searched."""
        return [self.network] if isinstance(self.network, str) else [str(name) for name in self.network.choices]

    def options_of(self, network: str) -> Mapping[str, Any]:
        """The options of one of the networks that are not searched."""
        options: Mapping[str, Any] = self.options if isinstance(self.network, str) else self.options.get(network, {})
        return options

    def fixed(self, task: Task) -> set[str]:
        """The names of the parameters that the options fix."""
        return {
            name
            for network, names in named_parameters(self.networks, task).items()
            for option, name in names.items()
            if option in self.options_of(network)
        }

    def chosen(self, params: Mapping[str, Any], task: Task) -> tuple[str, dict[str, Any]]:
        """The network of a trial and all its options."""
        network = params.get(NETWORK, self.networks[0])
        names = named_parameters(self.networks, task)[network]
        drawn = {option: params[name] for option, name in names.items() if name in params}
        return network, {**self.options_of(network), **drawn}

    def check(self) -> None:
        """Build the smallest such networks, which checks the options before anything is fitted."""
        names = self.networks
        for place, name in enumerate(names):
            if name in names[:place]:
                raise InputError(f'fusion.network: "{name}" is named twice')
        if isinstance(self.network, Choice):
            for name, options in self.options.items():
                if name not in names or not isinstance(options, dict):
                    raise InputError(
                        f"fusion.options must be a mapping from {', '.join(names)} to the options of each but has "
                        f"{name}: {options!r}"
                    )
        for name in names:
            kind: type[FusionNetwork] = NETWORKS.get(name)
            if not (isinstance(kind, type) and issubclass(kind, FusionNetwork)):
                raise InputError(f'network "{name}" must be a subclass of metarec.fusion.FusionNetwork but is {kind}')
            with torch.random.fork_rng():
                kind.for_episodes(2, 1, 1, **self.options_of(name))

    def __str__(self) -> str:
        return ", ".join(self.networks)
