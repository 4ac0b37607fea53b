"""Plain values: YAML of specs and ``--set``, within limits of size and depth; objects that have each key once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import yaml

from metarec.errors import InputError, shown
from metarec.files import Limit

__all__ = ["SPEC", "are_names", "assign", "plain_values", "unique_keys", "without_options"]

SPEC = Limit("METAREC_MAX_SPEC_BYTES", 1 << 17)
"""Of a spec's file, and of its content where each alias is replaced by what it stands for."""

DEEPEST = 30
"""Levels of a spec. metarec's own have four."""

LONGEST_NUMBER = 100
"""Digits. Python takes time that grows with their square to read a number."""

_PLAIN = ("str", "bool", "null", "value", "merge")


def plain_values(text: str) -> Any:
    """The value that a text in YAML stands for.

    Raises:
        yaml.YAMLError or ValueError: this is no YAML.
        InputError: a tag, a key that is there twice, an alias inside what it stands for, or a limit.
    """
    _check_size(text)
    return yaml.load(text, _Loader)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for the ``object_pairs_hook`` of :func:`json.loads`, which takes the last of equal keys.

    Raises:
        ValueError: a key is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{shown(twice, 30)}" is there twice')
    return values


def assign(content: dict[str, Any], assignment: str) -> None:
    """Set one value in nested mappings.

    Args:
        content: is changed. assignment: ``KEY=VALUE`` of ``--set``; KEY is a path such as ``training.epochs``, VALUE is
            read as YAML, or else as text.

    Raises:
        InputError: another form, a limit, or a value on the path has no keys.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f'--set must be KEY=VALUE but got "{shown(assignment)}"')
    *parents, last = key.split(".")
    try:
        _check_depth(len(parents) + 1)
        value = plain_values(text)
    except InputError as error:
        raise InputError(f"--set {shown(key)}: {error}") from None
    except (yaml.YAMLError, ValueError):
        value = text
    place = content
    for parent in parents:
        inner = place.get(parent)
        if are_names(inner):
            inner = without_options(inner)
        if inner is not None and not isinstance(inner, dict):
            raise InputError(f'--set {shown(key)}: "{shown(parent)}" holds {shown(repr(inner))}, which has no keys')
        # A copy, because the mapping may come from the defaults of another call.
        place[parent] = dict(inner or {})
        place = place[parent]
    place[last] = value


def are_names(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of names, which stands for a mapping of these names to no options."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def without_options(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The mapping that a list of names stands for."""
    return {name: {} for name in names}


def _check_depth(depth: int) -> None:
    """Raise InputError where a value is too many levels deep."""
    if depth > DEEPEST:
        raise InputError(f"a spec is at most {DEEPEST} levels deep, but this is deeper; remove levels")


def _check_size(text: str) -> None:
    """Check size and depth on the parser's events, before anything is made of them."""
    sizes = [0]
    # Open values have an anchor or None; complete ones have a size and a depth.
    opened: list[str | None] = []
    anchored: dict[str, tuple[int, int]] = {}
    deepest = [0]
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            _check_depth(len(opened) + 1)
            _check_tag(event)
            opened.append(event.anchor)
            sizes.append(1)
            deepest.append(0)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = opened.pop(), sizes.pop(), deepest.pop() + 1
            if anchor is not None:
                anchored[anchor] = size, depth
            sizes[-1] += size
            deepest[-1] = max(deepest[-1], depth)
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event)
            size = 1 + len(event.value)
            if event.anchor is not None:
                anchored[event.anchor] = size, 0
            sizes[-1] += size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in opened:
                raise InputError(f'the alias "{shown(event.anchor)}" stands inside itself; write the values out')
            size, depth = anchored.get(event.anchor, (1, 0))
            _check_depth(len(opened) + depth)
            sizes[-1] += size
            deepest[-1] = max(deepest[-1], depth)
            SPEC.check(sum(sizes), "the spec without its aliases")


def _check_tag(event: Any) -> None:
    if event.tag is not None:
        raise InputError(
            f'line {event.start_mark.line + 1}: a spec has no tags but this has "{shown(event.tag)}"; remove it'
        )


class _Loader(yaml.SafeLoader):
    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if len(node.value) > LONGEST_NUMBER and node.tag.rpartition(":")[2] not in _PLAIN:
            place = f"line {node.start_mark.line + 1}"
            raise InputError(
                f"{place}: a number has at most {LONGEST_NUMBER} digits but {shown(node.value, 20)} has more"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    place = f"line {key.start_mark.line + 1}"
                    raise InputError(f'{place}: the key "{shown(key.value)}" is there twice; remove one of them')
                keys.add((key.tag, key.value))
        return node
