"""``metarec specs`` and ``metarec keys``: what a study can be given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import typer

from metarec.errors import InputError, printable

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["SpecKey", "keys", "spec_keys", "specs"]


class SpecKey(NamedTuple):
    """A key of a spec.

    Attributes:
        name: with those of the parts that it is in, as in ``episodes.shots``.
        default: as JSON; empty for a part, whose keys have defaults.
    """

    name: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.name}{self.default and ' = '}{self.default}: {self.meaning}"


def specs() -> None:
    """List the specs in studies/, here and of the package: names for metarec study."""
    from metarec.study.spec import load_spec
    from metarec.study.spec_files import spec_names

    for name in spec_names():
        try:
            line = load_spec(name, {}).description
        except InputError as error:
            line = f"cannot be read: {error}"
        typer.echo(printable(f"{name}: {line}"))


def keys() -> None:
    """List the keys of a spec with their defaults and meanings; metarec study --set KEY=VALUE changes one."""
    for key in spec_keys():
        typer.echo(str(key))


def spec_keys() -> list[SpecKey]:
    """Every key of a spec, in the order of a spec's file."""
    from metarec.study.spec import StudySpec

    return list(_keys(StudySpec, "", StudySpec(), StudySpec(task="ranking")))


def _keys(kind: type[BaseModel], prefix: str, rating: BaseModel, ranking: BaseModel) -> Iterator[SpecKey]:
    """The keys of a part; `rating` and `ranking` hold its defaults for the tasks."""
    for name, field in kind.model_fields.items():
        full, meaning = f"{prefix}{name}", field.description or ""
        usual, other = getattr(rating, name), getattr(ranking, name)
        part = _part_of(field)
        if part is None or usual is None:
            default = _shown(usual)
            if other != usual and name != "task":
                default += f", in ranking {_shown(other)}"
            yield SpecKey(full, default, meaning)
        else:
            yield SpecKey(full, "", meaning)
        if part is not None:
            own = part() if usual is None else usual
            yield from _keys(part, f"{full}.", own, own if other is None else other)


def _part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a part of the spec, which may be optional; None for other keys."""
    from pydantic import BaseModel

    (kind, *others) = [kind for kind in get_args(field.annotation) or [field.annotation] if kind is not type(None)]
    return kind if not others and isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _shown(value: Any) -> str:
    # Base recommenders without options are named in a list, as in a spec's file.
    if isinstance(value, dict) and value and not any(value.values()):
        value = list(value)
    return json.dumps(value)
