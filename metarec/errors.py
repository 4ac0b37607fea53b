"""The errors that metarec raises on purpose."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Something the user handed in is wrong: a file, a row, a key of a spec, an argument.

    The message is one line that names what is wrong, the rule, the value, and the cure. The command line prints it
    after ``error:`` and ends with exit code 2; everywhere else it is an ordinary :class:`ValueError`.
    """
