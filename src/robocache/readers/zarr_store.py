"""Where a Zarr store keeps its bytes: a folder, or a zip file that is never unpacked; read-only, nothing outside it."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from robocache.errors import DamagedRecordingError, RecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.limits import Limits, MiB
from robocache.readers.recording import unreadable

COPY = "copy or write it again"
MAX_ENTRIES = 1_000_000
ENDS_METADATA = ("meta/episode_ends/.zarray", "meta/episode_ends/zarr.json")  # what a replay buffer always has
# What zipfile raises over a damaged file. ValueError and OverflowError are offsets before the file or beyond any.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError)
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Zarr compresses chunks itself; others fail in ways of their own


class Store:
    """An open store; keys are paths in it with slashes.

    Args:
        path: The folder, or the zip file, also one of a folder that lies deeper in it.
        limits: How large one of its files may be.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._process = os.getpid()
        self._zip = None if path.is_dir() else self._opened()
        self._folder = "" if self._zip is None else self._folder_in(self._zip)

    def close(self) -> None:
        """Close the file."""
        if self._zip is not None:
            self._zip.close()

    def names(self, folder: str) -> list[str]:
        """What lies in a folder of the store, sorted."""
        if self._zip is None:
            inside = self._inside(folder)
            with self._named(folder):
                return sorted(entry.name for entry in inside.iterdir()) if inside.is_dir() else []
        start = f"{self._folder}{folder}/"
        return sorted(
            {name[len(start) :].split("/", 1)[0] for name in self._zip.namelist() if name.startswith(start)} - {""}
        )

    def get(self, key: str, at_most: int | None = None) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            RecordingLimitError: It is longer than `at_most`, or than the limits.
            DamagedRecordingError: It leads out of the store, or the zip file is damaged.
        """
        limit = self.limits.block_bytes if at_most is None else min(at_most, self.limits.block_bytes)
        with self._named(key):
            data = self._from_folder(key, limit) if self._zip is None else self._from_zip(key, limit)
        if data is not None and len(data) > limit:
            problem = f"has more than {limit} bytes, which are possible or allowed"
            raise RecordingLimitError(self.path, problem, place=f"entry {key}", remedy=COPY)
        return data

    def _from_folder(self, key: str, limit: int) -> bytes | None:
        path = self._inside(key)
        if not path.is_file() and not path.is_symlink():  # a link to nowhere is no chunk that was never written
            return None
        with path.open("rb") as file:
            return _content(file, limit)

    def _from_zip(self, key: str, limit: int) -> bytes | None:
        if self._process != os.getpid():  # parent and child would move one position in the file between them
            self._zip, self._process = self._opened(), os.getpid()
        assert self._zip is not None
        try:
            info = self._zip.getinfo(self._folder + key)
        except KeyError:
            return None
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            problem = "is encrypted, or compressed by another method than deflate"
            remedy = "write the zip file stored or deflated, without a password"
            raise DamagedRecordingError(self.path, problem, place=f"entry {ascii(key)[1:-1]}", remedy=remedy)
        with self._zip.open(info) as file:
            return _content(file, limit)

    def _inside(self, key: str) -> Path:
        path = self.path / key
        with self._named(key):
            if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path)):
                remedy = "do not trust this store"
                raise DamagedRecordingError(self.path, "leads out of the store", place=f"entry {key}", remedy=remedy)
        return path

    def _opened(self) -> zipfile.ZipFile:
        with self._named("directory of the zip file"):
            opened = zipfile.ZipFile(self.path)
        if len(opened.filelist) > MAX_ENTRIES:
            opened.close()
            raise RecordingLimitError(self.path, f"has more than {MAX_ENTRIES} entries", remedy="write larger chunks")
        return opened

    def _folder_in(self, opened: zipfile.ZipFile) -> str:
        """What stands before the keys of the one buffer in a zip file: a folder that was zipped keeps its name."""
        found = {name[: -len(end)] for name in opened.namelist() for end in ENDS_METADATA if name.endswith(end)}
        folders = sorted(folder for folder in found if not folder or folder.endswith("/"))
        if not folders or "" in folders:
            return ""
        if len(folders) > 1:
            opened.close()
            names = ", ".join(ascii(folder)[1:-1][:40] for folder in folders[:4])
            problem = f"holds {len(folders)} replay buffers ({names})"
            raise UnknownFormatError(self.path, problem, remedy="unpack it, and name one of them")
        return folders[0]

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        try:
            yield
        except RecordingError:
            raise
        except OSError as error:
            raise unreadable(Path(error.filename or self.path), error) from error
        except NotImplementedError as error:  # zipfile's word for a version or flag of the format
            problem = f"uses what is not read of the zip format ({error})"
            remedy = "if it is not damaged, write the zip file again, stored or deflated"
            raise DamagedRecordingError(self.path, problem, place=f"entry {ascii(key)[1:-1]}", remedy=remedy) from error
        except _DAMAGE as error:
            text = " ".join(ascii(str(error))[1:-1].split())[:200]
            problem = f"cannot be read ({text})"
            raise DamagedRecordingError(self.path, problem, place=f"entry {ascii(key)[1:-1]}", remedy=COPY) from error


def _content(file: IO[bytes], limit: int) -> bytes:
    """All of a file, or one byte more than the limit; in pieces, for a read allocates all that it is asked for."""
    content = bytearray()
    while len(content) <= limit:
        piece = file.read(min(MiB, limit + 1 - len(content)))
        if not piece:
            break
        content += piece
    return bytes(content)
