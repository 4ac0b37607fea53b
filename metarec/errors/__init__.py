"""The error that metarec raises for wrong input, checks of single arguments, and what messages show of texts."""

from metarec.errors._checks import (
    NAME_BYTES,
    InputError,
    check_address,
    check_at_least,
    check_flag,
    check_name,
    check_positive,
)
from metarec.errors._secrets import masked, shown_address
from metarec.errors._texts import printable, shown

__all__ = [
    "NAME_BYTES",
    "InputError",
    "check_address",
    "check_at_least",
    "check_flag",
    "check_name",
    "check_positive",
    "masked",
    "printable",
    "shown",
    "shown_address",
]
