"""Plug-ins by name: the built-ins of the package, and other people's from entry points."""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
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

    def builtins(self) -> list[str]:
        """The names of the package's own, in their order: what defaults are made of, whatever else is installed."""
        return list(self._builtins)

    def names(self) -> list[str]:
        """Every name that can be asked for: the built-ins in their order, then the plug-ins."""
        return list(dict.fromkeys([*self._builtins, *self._plugins()]))

    def code_of(self, names: Iterable[str]) -> dict[str, str]:
        """Of those of the names that are plug-ins, a hash of the package each comes from.

        What was computed with other code of theirs is not to be found again; our own code is hashed elsewhere.
        """
        foreign = [name for name in names if name not in self._builtins]
        plugins = self._plugins() if foreign else {}
        return {name: _code_hash(plugins[name].module.partition(".")[0]) for name in foreign if name in plugins}

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
        return self._plugins()[name].load()

    def _plugins(self) -> Mapping[str, EntryPoint]:
        return _announced(self.group, tuple(sys.path))


@lru_cache
def _announced(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """name -> the first plug-in of that name on the import path, which is an argument for the cache alone."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return found


@lru_cache
def _code_hash(package: str) -> str:
    """Of every Python file of an installed package, or of a single module."""
    spec = find_spec(package)
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    hashed = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            hashed.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    if not folders and spec.origin:
        hashed.update(Path(spec.origin).read_bytes())
    return hashed.hexdigest()[:24]
