"""The error that metarec raises for wrong input, checks of single arguments, and values in messages."""

import math

__all__ = ["InputError", "check_at_least", "check_flag", "check_positive", "shown"]


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


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for messages."""
    try:
        text = str(value)
    except ValueError:
        # Python writes no int of more than 4,300 digits.
        text = f"{type(value).__name__} of too many digits"
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
