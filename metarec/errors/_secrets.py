"""What no message shows: passwords and tokens."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

__all__ = ["is_address", "masked", "shown_address"]

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


def is_address(address: str) -> bool:
    """Whether the parts of an address cannot be taken for others."""
    return _ADDRESS.fullmatch(address) is not None
