"""Plug-ins by name: the built-ins of the package, and other people's from entry points."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from metarec.errors import InputError

__all__ = ["Registry", "suggest"]


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the near miss if there is one, and what is known.

    >>> suggest("rigde", ["ridge", "mean"])
    'did you mean "ridge"? Known: mean, ridge'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}Known: {', '.join(known)}"


class Registry:
    """Finds one kind of thing by name and imports it only when it is asked for.

    Args:
        kind: what the things are called in messages, for example ``"base recommender"``.
        group: the entry-point group in which other packages announce theirs, for example ``"metarec.bases"``.
        builtins: name -> ``"module:attribute"``.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtins = dict(builtins)

    def names(self) -> list[str]:
        """Every name that can be asked for: the built-ins in their order, then the plug-ins."""
        plugins = (point.name for point in entry_points(group=self.group))
        return list(dict.fromkeys([*self._builtins, *plugins]))

    def check(self, name: str) -> str:
        """Return `name`, or raise :class:`InputError` with the near miss."""
        # What is installed is looked through only where it matters: that is reading a few hundred files.
        if name in self._builtins:
            return name
        known = self.names()
        if name not in known:
            raise InputError(f'unknown {self.kind} "{name}"; {suggest(name, known)}')
        return name

    def get(self, name: str) -> Any:
        """The thing itself. A built-in wins over a plug-in of the same name, so that names keep their meaning."""
        self.check(name)
        if name in self._builtins:
            module, _, attribute = self._builtins[name].partition(":")
            return getattr(import_module(module), attribute)
        (point, *_) = entry_points(group=self.group, name=name)
        return point.load()
