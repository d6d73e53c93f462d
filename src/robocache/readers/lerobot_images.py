"""Images in the Parquet files of a LeRobot dataset: structures of bytes and a path, one a row.

One is read with the page that holds it, and its neighbours stay at hand. What a page is depends on the writer: pyarrow
makes one of a megabyte where images are small, and of 1024 images where they are large; LeRobot starts anew with each
episode. Dictionaries, which hold the first images of an episode, are pages too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from robocache.errors import ClosedError, DamagedRecordingError
from robocache.readers.decoders import OPEN_DECODERS
from robocache.readers.images import ImageError, Uint8, decoded, image_shape
from robocache.readers.lerobot_table import CHECK, opened_table
from robocache.readers.limits import Limits
from robocache.readers.parquet_pages import DICTIONARY, Page, chunk_pages
from robocache.readers.parquet_values import PageError, Values, page_values
from robocache.readers.recording import open_binary
from robocache.readers.stills import StillFrames
from robocache.records import Int64

if TYPE_CHECKING:
    from pyarrow.parquet import ColumnChunkMetaData

ImageShape = tuple[int, int, int]


@dataclass
class _Group:
    """The pages of a row group's column: of each the first row in the group, and the dictionary's values."""

    codec: str
    starts: list[int]
    pages: list[Page]
    dictionary: Values | None


class ImageColumn:
    """The bytes of one feature's images in one file; use it from one thread at a time.

    Args:
        path: The file.
        name: The feature.
        limits: How large pages may be.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It has no column of images of this name.
    """

    def __init__(self, path: Path, name: str, limits: Limits) -> None:
        self._path, self._name, self._limits = path, name, limits
        with opened_table(path) as table:
            names = [table.schema.column(number).path for number in range(len(table.schema.names))]
            if f"{name}.bytes" not in names:
                problem = f"has no column {name!r} of images (bytes and a path)"
                raise DamagedRecordingError(path, problem, remedy=CHECK)
            number = names.index(f"{name}.bytes")
            column = table.schema.column(number)
            if column.max_repetition_level or column.physical_type != "BYTE_ARRAY":
                problem = f"holds {column.physical_type.lower()} values, not the bytes of one image a row"
                raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
            self._max_level: int = column.max_definition_level
            groups = [table.metadata.row_group(group) for group in range(table.metadata.num_row_groups)]
            self._chunks: list[ColumnChunkMetaData] = [group.column(number) for group in groups]
        self._ends = list(accumulate(chunk.num_values for chunk in self._chunks))
        self._group: tuple[int, _Group] | None = None
        self._page: tuple[Page, Values] | None = None
        self._file: BinaryIO = open_binary(path)

    def close(self) -> None:
        """Let go of the file, and of the pages that were read."""
        self._file.close()
        self._group = self._page = None

    def image(self, row: int) -> bytes:
        """The encoded image of a row of the file.

        Raises:
            ImageError: The row has none.
            DamagedRecordingError: Its page cannot be read.
            RecordingLimitError: Its page, or one before it, declares more than the limits allow.
        """
        number = bisect_right(self._ends, row)
        if number >= len(self._chunks):
            raise ImageError(f"is row {row} of the file, which has {self._ends[-1] if self._ends else 0}")
        first = self._ends[number] - self._chunks[number].num_values
        group = self._opened_group(number)
        place = bisect_right(group.starts, row - first) - 1
        values = self._opened_page(group, group.pages[place])
        data = values.value(row - first - group.starts[place])
        if data is None:
            raise ImageError("is not in the file, which has at most a path to it: write it with its bytes embedded")
        return data

    def _opened_group(self, number: int) -> _Group:
        if self._group is None or self._group[0] != number:
            self._group = self._page = None
            chunk = self._chunks[number]
            pages = list(chunk_pages(self._file, self._path, chunk, self._limits))
            is_first_dictionary = bool(pages) and pages[0].kind == DICTIONARY
            data_pages = pages[1:] if is_first_dictionary else pages
            starts = [0, *accumulate(page.values for page in data_pages)][:-1]
            group = _Group(chunk.compression, starts, data_pages, None)
            if is_first_dictionary:
                group.dictionary = self._values(group, pages[0])
            self._group = number, group
        return self._group[1]

    def _opened_page(self, group: _Group, page: Page) -> Values:
        if self._page is None or self._page[0] is not page:
            self._page = None  # not two at once
            self._page = page, self._values(group, page)
        return self._page[1]

    def _values(self, group: _Group, page: Page) -> Values:
        try:
            self._file.seek(page.offset)
            return page_values(page, self._file.read(page.stored), group.codec, self._max_level, group.dictionary)
        except (PageError, OSError) as error:
            place = f"column {self._name}, byte"
            raise DamagedRecordingError(
                self._path, str(error), place=place, offset=page.offset, remedy=CHECK
            ) from error


class ImageColumns:
    """The images of one recording: open columns wait among the decoders of the process.

    Args:
        limits: How large pages and images may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shapes: dict[str, ImageShape | str] = {}
        self._is_closed = False

    def close(self) -> None:
        """Close the files."""
        self._is_closed = True
        OPEN_DECODERS.close_those_of(self)

    def image(self, path: Path, name: str, row: int) -> bytes:
        """The encoded image of a row of a file; see `ImageColumn.image`.

        Raises:
            ClosedError: After `close`.
        """
        if self._is_closed:
            raise ClosedError(f"the recording of {path} is closed; open it again to read from it")
        opened: Callable[[], ImageColumn] = lambda: ImageColumn(path, name, self._limits)  # noqa: E731
        with OPEN_DECODERS.lent(self, (path, name), opened, may_wait=lambda: not self._is_closed) as column:
            try:
                return column.image(row)
            except ImageError as error:  # of this row, not of the file
                problem = error
        raise problem

    def shape(self, path: Path, name: str, row: int) -> ImageShape | str:
        """Height, width and 3 of a feature's images, all of one size; a text says why they are no pictures.

        Args:
            path: A file with the feature.
            name: It.
            row: Of the image that is looked at, the first time.
        """
        if name not in self._shapes:
            try:
                self._shapes[name] = image_shape(self.image(path, name, row))
            except ImageError as error:
                self._shapes[name] = f"its first image {error}"
        return self._shapes[name]

    def frames(self, path: Path, name: str, rows: range, shape: ImageShape) -> StillFrames:
        """What decodes the images of an episode.

        Args:
            path: The file.
            name: The feature.
            rows: Of the file.
            shape: Of each image.
        """

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            for number in numbers.tolist():
                yield decoded(self.image(path, name, rows[number]), self._limits)

        return StillFrames(str(path), f"column {name}, rows from {rows.start} on, image", len(rows), shape, fetch)
