"""What a Parquet column takes in memory, by its pages: the file's own sums may lie, and pyarrow believes the pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from robocache.errors import DamagedRecordingError
from robocache.readers.limits import Limits
from robocache.readers.parquet_pages import DICTIONARY, REMEDY, Page, chunk_pages
from robocache.readers.parquet_values import MAX_VALUES, PLAIN_DICTIONARY, RLE_DICTIONARY, PageError, page_values

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnChunkMetaData

_DELTA_BYTE_ARRAY = 7


def chunk_bytes(file: BinaryIO, path: Path, chunk: ColumnChunkMetaData, limits: Limits) -> int:
    """The most bytes that the pages of a column chunk, and the texts in them, take in memory.

    A text of a dictionary takes a few bits a row in the file, and one that begins as the one before it takes none.

    Args:
        file: Open for reading; its position changes.
        path: Its path, for errors.
        chunk: What the file's metadata say of it.
        limits: What pages may become in memory, each and all together.

    Raises:
        DamagedRecordingError: A header that is none, other values than the metadata say, or a damaged dictionary.
        RecordingLimitError: A page declares more bytes than the chunk holds, or than are allowed.
    """
    found = longest = 0
    for page in chunk_pages(file, path, chunk, limits):
        found += page.declared
        if chunk.physical_type != "BYTE_ARRAY":
            continue
        if page.kind == DICTIONARY:
            longest = _longest_value(file, path, page, chunk.compression)
        elif page.encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            found += page.values * longest
        elif page.encoding == _DELTA_BYTE_ARRAY:
            found += page.values * page.declared
    return found


def _longest_value(file: BinaryIO, path: Path, page: Page, codec: str) -> int:
    if page.values > MAX_VALUES:
        return page.declared
    place = file.tell()
    file.seek(page.offset)
    try:
        bounds = page_values(page, file.read(page.stored), codec, 0, None).bounds
    except PageError as error:
        raise DamagedRecordingError(path, str(error), offset=page.offset, remedy=REMEDY) from error
    file.seek(place)
    return int((bounds[:, 1] - bounds[:, 0]).max(initial=0))
