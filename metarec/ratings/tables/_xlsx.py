"""Excel's workbooks."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from xml.etree.ElementTree import ParseError

import pandas as pd

from metarec.errors import InputError, shown
from metarec.ratings.tables._files import TABLE, check_cells

__all__ = ["read_xlsx"]

logger = logging.getLogger(__name__)


def read_xlsx(path: Path, content: bytes) -> pd.DataFrame:
    """The first sheet of a workbook; its first row names the columns. The index is the number of the row, from 0.

    Raises:
        InputError: openpyxl is not installed; or a file that is no workbook, or above the limits of a table.
    """
    try:
        # Optional, and only needed for this format.
        import openpyxl
    except ImportError:
        raise InputError(
            f'{path}: needs openpyxl, which is not installed; pip install "metarec[xlsx]", or export the table as csv '
            "in UTF-8"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        TABLE.check(unpacked, f"{path}: the table without compression")
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        rows = list(sheet.iter_rows(values_only=True))
    except InputError:
        raise
    except (zipfile.BadZipFile, ParseError, KeyError, IndexError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: not a workbook that can be read ({shown(error)}); export it as csv") from error
    if len(book.worksheets) > 1:
        others = ", ".join(shown(other.title) for other in book.worksheets[1:])
        logger.info('%s: the sheet "%s" is read; ignored: %s', path, shown(sheet.title), others)
    names = ["" if name is None else str(name).strip() for name in (rows[0] if rows else ())]
    check_cells(path, len(rows), names)
    frame = pd.DataFrame(rows[1:], columns=names, dtype=object)
    return frame[frame.notna().any(axis=1)].infer_objects()
