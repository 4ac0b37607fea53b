"""The files of specs: those of the user, and those of the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import metarec
from metarec.errors import InputError, shown
from metarec.registry import suggest

__all__ = ["find_spec", "spec_names"]

INSTALLED = "share/metarec/studies/"
"""Where setup.cfg lets pip put the package's specs, inside the environment."""


def find_spec(name: str) -> Path:
    """The file of a spec: a path, or the name of a file in ``studies/``, here or of the package.

    Raises:
        InputError: there is no such file; the closest name is suggested.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        # A path that no file can have is not there either; a pipe or a folder is refused when it is opened.
        if os.path.exists(path):
            return path
        raise InputError(
            f"{shown(path, 200)}: there is no such spec file; name a YAML file, or one of: {', '.join(spec_names())}"
        )
    for folder in _folders():
        if os.path.exists(folder / f"{name}.yaml"):
            return folder / f"{name}.yaml"
    raise InputError(f'unknown spec "{shown(name)}"; {suggest(name, spec_names())}')


def spec_names() -> list[str]:
    """The names of the specs in ``studies/``, here and of the package."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")})


def _folders() -> Iterator[Path]:
    yield Path("studies")
    # In a checkout the specs lie beside the package.
    yield Path(metarec.__file__).parent.parent / "studies"
    try:
        installed = [one for one in files("metarec") or () if INSTALLED in one.as_posix()]
    except PackageNotFoundError:
        return
    yield from dict.fromkeys(Path(str(one.locate())).resolve().parent for one in installed)
