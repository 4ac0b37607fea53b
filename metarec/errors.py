"""The error that metarec raises for wrong input, checks of single arguments, and text as messages show it."""

import math

__all__ = [
    "NAME_BYTES",
    "InputError",
    "check_at_least",
    "check_flag",
    "check_name",
    "check_positive",
    "printable",
    "shown",
]

NAME_BYTES = 100
"""The most bytes of a name in UTF-8. Most file systems allow 255 in the name of a file, which may be made of the names
of a domain and of a base, a hash, and the ending of a file that is half written."""


class InputError(ValueError):
    """The user's input is wrong: a file, a row, a key of a spec, an argument.

    The message is one line that names the problem, the rule, the value, and the cure. The command line prints it after
    ``error:`` and ends with exit code 2; elsewhere it is an ordinary :class:`ValueError`.
    """


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


def printable(text: str, keep: str = "") -> str:
    r"""The text with an escape for each character that has no shape of its own or changes the order of others.

    Such are control characters, marks of direction, spaces of no width, and half characters.

    >>> print(printable("a\x1b[31m\u202eb"))
    a\x1b[31m\u202eb

    Args:
        keep: characters that stay, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text)


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for messages."""
    try:
        text = str(value)
    except ValueError:
        # Python writes no int of more than 4,300 digits.
        text = f"{type(value).__name__} of too many digits"
    text = printable(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
