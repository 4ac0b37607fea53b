"""The error that metarec raises for wrong input."""

__all__ = ["InputError"]


class InputError(ValueError):
    """The user's input is wrong: a file, a row, a key of a spec, an argument.

    The message is one line that names the problem, the rule, the value, and the cure. The command line prints it after
    ``error:`` and ends with exit code 2; elsewhere it is an ordinary :class:`ValueError`.
    """
