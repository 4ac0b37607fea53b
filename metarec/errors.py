"""The error that metarec raises for wrong input, checks of single arguments, and what no message shows: passwords."""

import math
import os
import re
from urllib.parse import quote

__all__ = [
    "InputError",
    "check_address",
    "check_at_least",
    "check_flag",
    "check_positive",
    "masked",
    "shown_address",
]

HIDDEN = "***"

SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "RAY_AUTH_TOKEN")
"""Variables of the environment that hold a password or a token."""

SHORTEST = 4
"""The length from which such a value is looked for. A shorter one is part of ordinary words."""

_OPEN = re.compile(r"(sqlite|file)(\+\w+)?:///.*|databricks(-uc)?://[\w.:-]*", re.DOTALL)
"""Addresses that have no password: a path, and the name of a profile."""

_ADDRESS = re.compile(
    # The scheme, the user and the password, the host or an IPv6 address, the port, and the rest.
    r"[\w.+-]+://([^\s/?#@]*@)?(\[[^\s\]]*\]|[^\s/?#@:\[\]]*)(:\d*)?([/?#][^\s@]*)?"
)


class InputError(ValueError):
    """The user's input is wrong: a file, a row, a key of a spec, an argument.

    The message is one line that names the problem, the rule, the value, and the cure. The command line prints it after
    ``error:`` and ends with exit code 2; elsewhere it is an ordinary :class:`ValueError`. The message is
    :func:`masked`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


def masked(text: str) -> str:
    """A text without the secrets of the addresses in it, and without those of the environment (:data:`SECRETS`).

    Hidden is what stands before the last ``@`` of an address, but for the user of a database, and what follows its
    ``?``. The user of a web server may be a token.

    >>> masked("no answer from https://token:@host/api?key=secret")
    'no answer from https://***@host/api?***'
    """
    text = re.sub(r"(https?)?://(?=[^/\s])(\S*)@", _without_password, text)
    text = re.sub(r"(://[^\s?]*\?)\S+", rf"\1{HIDDEN}", text)
    for name in SECRETS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    return text


def _without_password(found: re.Match[str]) -> str:
    web, login = found.groups(default="")
    user, colon, _ = login.partition(":")
    if web or not re.fullmatch(r"[\w.-]+", user):
        return f"{web}://{HIDDEN}@"
    return f"://{user}:{HIDDEN}@" if colon else f"://{user}@"


def shown_address(address: str) -> str:
    """The address of a database or a server as it may be shown. Of a malformed one only the scheme is shown.

    >>> shown_address("postgresql://ada:secret@host/runs")
    'postgresql://ada:***@host/runs'
    >>> shown_address("postgresql://ada:sec/ret@host/runs")
    'postgresql://***'
    """
    if _OPEN.fullmatch(address):
        return address
    if _ADDRESS.fullmatch(address):
        return masked(address)
    scheme, there, _ = address.partition("://")
    if there:
        return f"{scheme}://{HIDDEN}" if re.fullmatch(r"[\w.+-]+", scheme) else HIDDEN
    return HIDDEN if re.search(r"[@\s]|(?<!^file):", address) else address


def check_address(option: str, address: str) -> None:
    """Raise InputError for an address whose parts could be taken for others, before a library shows a part of it."""
    if shown_address(address) != address and not _ADDRESS.fullmatch(address):
        raise InputError(
            f"{option} {shown_address(address)} is malformed: it must be SCHEME://USER:PASSWORD@HOST:PORT/NAME with a "
            "number as port; percent-encode signs of the password (@ as %40, / as %2F), or leave the password out "
            "and give it in the environment"
        )


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
