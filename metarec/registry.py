"""Plug-ins by name: built-ins of the package, and entry points of other packages."""

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

from metarec.errors import InputError, check_name, shown

__all__ = ["Registry", "suggest"]


def suggest(name: str, available: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the closest name, if one is close, and all names.

    >>> suggest("rigde", ["ridge", "mean"])
    'did you mean "ridge"? Known: mean, ridge'
    """
    names = sorted(available)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}Known: {', '.join(names)}"


class Registry:
    """Finds plug-ins of one kind by name, and imports them only when they are requested.

    Args:
        kind: its name in messages, for example ``"base recommender"``.
        group: the entry-point group of other packages, for example ``"metarec.bases"``.
        builtins: name -> ``"module:attribute"``.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtins = dict(builtins)

    def builtins(self) -> list[str]:
        """The names of the built-ins, in their order. Defaults use these alone, whatever is installed."""
        return list(self._builtins)

    def names(self) -> list[str]:
        """All names: the built-ins in their order, then the plug-ins."""
        return list(dict.fromkeys([*self._builtins, *self._plugins()]))

    def code_of(self, names: Iterable[str]) -> dict[str, str]:
        """A hash of the package of each plug-in among the names.

        It is a part of cache keys, so that results of other code are not reused. Built-in code is hashed elsewhere.
        """
        foreign = [name for name in names if name not in self._builtins]
        plugins = self._plugins() if foreign else {}
        return {name: _code_hash(plugins[name].module.partition(".")[0]) for name in foreign if name in plugins}

    def check(self, name: str) -> str:
        """Return `name`, or raise :class:`InputError`: with the closest name, or for a plug-in with a bad name."""
        # Built-ins are checked first, because the search of plug-ins reads a few hundred files.
        if name not in self._builtins:
            if name not in (names := self.names()):
                raise InputError(f'unknown {self.kind} "{shown(name)}"; {suggest(name, names)}')
            check_name(f"the name of a {self.kind}", name)
        return name

    def get(self, name: str) -> Any:
        """Import a plug-in. A built-in takes precedence, so that names keep their meaning."""
        self.check(name)
        if name in self._builtins:
            module, _, attribute = self._builtins[name].partition(":")
            return getattr(import_module(module), attribute)
        return self._plugins()[name].load()

    def _plugins(self) -> Mapping[str, EntryPoint]:
        return _announced(self.group, tuple(sys.path))


@lru_cache
def _announced(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """name -> the first plug-in of that name on the import path; `path` is only a key of the cache."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return found


@lru_cache
def _code_hash(package: str) -> str:
    """A hash of all Python files of an installed package, or of a single module."""
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
