"""The error for wrong input, and checks of single arguments."""

from __future__ import annotations

import math

from metarec.errors._secrets import is_address, masked, shown_address
from metarec.errors._texts import shown

__all__ = [
    "NAME_BYTES",
    "InputError",
    "check_address",
    "check_at_least",
    "check_flag",
    "check_name",
    "check_positive",
]

NAME_BYTES = 100
"""The most bytes of a name in UTF-8. Most file systems allow 255 in the name of a file, which may be made of the names
of a domain and of a base, a hash, and the ending of a file that is half written."""


class InputError(ValueError):
    """The user's input is wrong: a file, a row, a key of a spec, an argument.

    The message is one line that names the problem, the rule, the value, and the cure. The command line prints it after
    ``error:`` and ends with exit code 2; elsewhere it is an ordinary :class:`ValueError`. The message is
    :func:`masked`.
    """

    # The name that users import, also in tracebacks.
    __module__ = "metarec.errors"

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


def check_at_least(lowest: int, **values: int) -> None:
    """Raise InputError where an argument is no integer, or lower than `lowest`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise InputError(f"{name} must be an integer >= {lowest} but got {value!r}")


def check_positive(**values: float) -> None:
    """Raise InputError where an argument is no finite number > 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{name} must be a finite number > 0 but got {value!r}")


def check_flag(**values: bool) -> None:
    """Raise InputError where an argument is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False but got {value!r}")


def check_name(what: str, *names: object) -> None:
    """Raise InputError unless each name can be a part of a file's name and is read as it is written.

    This is the one rule for the names of domains, studies, models and plug-ins, wherever they come from.

    >>> check_name("the name of a domain", "movies", "Bücher & Filme")
    >>> check_name("the name of a domain", "../movies")
    Traceback (most recent call last):
    metarec.errors.InputError: the name of a domain must not hold a slash but got "../movies"; choose a plain name

    Args:
        what: whose name it is, for the message.
    """
    for name in names:
        if not isinstance(name, str) or not name.strip(". "):
            rule = "must be text that is more than dots and spaces"
        elif "/" in name or "\\" in name:
            rule = "must not hold a slash"
        elif not name.isprintable():
            rule = "must hold printable letters only"
        elif len(name.encode()) > NAME_BYTES:
            rule = f"must have at most {NAME_BYTES} bytes in UTF-8 but has {len(name.encode())},"
        else:
            continue
        raise InputError(f'{what} {rule} but got "{shown(name)}"; choose a plain name')


def check_address(option: str, address: str) -> None:
    """Raise InputError for an address whose parts could be taken for others, before a library shows a part of it."""
    if shown_address(address) != address and not is_address(address):
        raise InputError(
            f"{option} {shown_address(address)} is malformed: it must be SCHEME://USER:PASSWORD@HOST:PORT/NAME with a "
            "number as port; percent-encode signs of the password (@ as %40, / as %2F), or leave the password out "
            "and give it in the environment"
        )
