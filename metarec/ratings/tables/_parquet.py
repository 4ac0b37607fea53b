"""Parquet files, read piece by piece within the limits of a table."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings.tables._files import TABLE, check_cells, read_bytes

__all__ = ["read_parquet"]

_ROWS = 1 << 16
"""Read at once."""

_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")


def read_parquet(path: Path, content: bytes | None = None) -> pd.DataFrame:
    """The columns of a parquet file, a stored index among them; texts are objects, and lists are arrays.

    Args:
        content: of the file, where it is read already.

    Raises:
        InputError: a file that cannot be read, is damaged, no regular file, or above the limits of a table.
    """
    # Slow to import, and only needed for this format.
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    whole = io.BytesIO(read_bytes(path) if content is None else content)
    try:
        with pq.ParquetFile(whole) as file:
            schema = file.schema_arrow
            rows = file.metadata.num_rows
        check_cells(path, rows, schema.names)
        # A long text of many rows takes little of a file, and as a dictionary little memory.
        texts = [field.name for field in schema if str(field.type) in _TEXTS]
        before, pieces = pa.total_allocated_bytes(), []
        with pq.ParquetFile(whole, read_dictionary=texts) as file:
            for piece in file.iter_batches(_ROWS):
                pieces.append(piece)
                TABLE.check(pa.total_allocated_bytes() - before, f"{path}: the table without compression")
            table = pa.Table.from_batches(pieces, file.schema_arrow)
        for name in table.schema.names:
            own = [part.dictionary for part in table[name].chunks if pa.types.is_dictionary(part.type)]
            # To pandas, texts that differ after a NUL are equal.
            if any(pa.types.is_string(part.type) and pc.any(pc.match_substring(part, "\0")).as_py() for part in own):
                raise InputError(f'{path}: column "{shown(name)}" holds the letter \\x00; remove it')
        # Without pandas' metadata, a stored index is a column.
        frame = table.to_pandas(ignore_metadata=True)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a parquet file that can be read ({shown(error)}); write it again") from error
    for place, name in enumerate(schema.names):
        if name in texts:
            frame.isetitem(place, frame.iloc[:, place].astype(object))
    frame.columns = frame.columns.map(str)
    return frame
