"""Files as tables: their bytes, their formats and their layouts in folders."""

from metarec.ratings.tables._files import MOST_COLUMNS, suffix_of
from metarec.ratings.tables._forms import Hints, is_number, plain_name
from metarec.ratings.tables._layouts import NAMED_BY_FOLDER, Source, find_source, load
from metarec.ratings.tables._parquet import read_parquet
from metarec.ratings.tables._tables import Table, read_frame

__all__ = [
    "MOST_COLUMNS",
    "NAMED_BY_FOLDER",
    "Hints",
    "Source",
    "Table",
    "find_source",
    "is_number",
    "load",
    "plain_name",
    "read_frame",
    "read_parquet",
    "suffix_of",
]
