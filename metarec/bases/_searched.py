"""The settings of a base that a search may vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from metarec.bases._base import Configured
from metarec.errors import InputError, shown
from metarec.registry import Registry, suggest

__all__ = ["Choices", "Limits", "Range", "Setting", "searched_settings"]


class Range(NamedTuple):
    """A setting's range for a search, on a logarithmic scale with `log`; whole numbers where both bounds are whole."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value is in the range."""
        kinds = int if self.is_whole else int | float
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high


class Choices(NamedTuple):
    """The values of a setting that a search chooses from."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value is among the choices."""
        return value in self.values


Limits: TypeAlias = Range | Choices
"""The values that a search may give to a setting."""


class Setting(NamedTuple):
    """A setting that a search varies: its values, and the one that the base has by default."""

    limits: Limits
    default: Any


def searched_settings(registry: Registry, name: str, options: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings of a base that a search may vary: those that its class names in `searched`.

    A class without `searched` has none.

    Args:
        registry: of the base. options: settings with a fixed value, which are left out.

    Raises:
        InputError: a plug-in's `searched` names something that is not one of its options, or has no default in its
            range.
    """
    kind = registry.get(name)
    defaults = _defaults(kind)
    found = {}
    for setting, limits in getattr(kind, "searched", {}).items():
        where = f'{registry.kind} "{name}": searched'
        if setting not in defaults:
            near = suggest(setting, defaults)
            raise InputError(f'{where} names "{shown(setting)}", which must be an option with a default; {near}')
        if not isinstance(limits, Range | Choices):
            raise InputError(
                f'{where} must give a Range or Choices of metarec.bases for "{setting}" but gives {shown(repr(limits))}'
            )
        if setting not in options and not limits.holds(defaults[setting]):
            raise InputError(
                f'{where} must hold the default of "{setting}", {shown(repr(defaults[setting]))}, but is {limits}'
            )
        found[setting] = Setting(limits, defaults[setting])
    return {setting: own for setting, own in found.items() if setting not in options}


def _defaults(kind: Any) -> dict[str, Any]:
    """Option -> default, of the options that have one."""
    if isinstance(kind, type) and issubclass(kind, Configured):
        return {name: field.default for name, field in kind.Config.model_fields.items() if not field.is_required()}
    parameters = inspect.signature(kind).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
