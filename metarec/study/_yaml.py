"""YAML as a spec has it: plain values, within limits of size and depth, and each key once."""

from __future__ import annotations

from typing import Any

import yaml

from metarec.errors import InputError, shown
from metarec.files import Limit

__all__ = ["SPEC", "check_depth", "plain_values"]

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


def check_depth(depth: int) -> None:
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
            check_depth(len(opened) + 1)
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
            check_depth(len(opened) + depth)
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
