"""How many files an RLDS data set should have, by their names, and episodes, by the dataset_info.json beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import MiB
from robocache.readers.tfrecord import COPY

INFO = "dataset_info.json"
MAX_INFO_BYTES = 8 * MiB
_SHARD = re.compile(r".*-([^-]+)\.tfrecord-([0-9]{5,6})-of-([0-9]{5,6})", re.DOTALL)


def check_counts(folder: Path, counts: Mapping[Path, int]) -> None:
    """Compare the records of each file with what is declared; of a file that nothing is declared of, nothing is asked.

    Raises:
        DamagedRecordingError: The counts differ, or dataset_info.json is not JSON.
    """
    if not (folder / INFO).is_file():
        return
    document = _document(folder / INFO)
    for file, found in counts.items():
        match = _SHARD.fullmatch(file.name)
        declared = _declared(document, match[1], int(match[2]), int(match[3])) if match else None
        if declared is not None and declared != str(found):
            problem = f"has {found} records, but {INFO} beside it says {declared[:20]}"
            raise DamagedRecordingError(file, problem, remedy=COPY)


def check_shards(folder: Path, files: Collection[Path]) -> None:
    """See that a folder holds all files of a split, whose names say how many they are.

    Raises:
        DamagedRecordingError: One is missing.
    """
    there: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            there.setdefault((file.name[: match.start(2)], int(match[3])), set()).add(int(match[2]))
    for (start, count), numbers in there.items():
        missing = next((number for number in range(count) if number not in numbers), None)
        if missing is not None:
            problem = f"holds {len(numbers)} of the {count} files {start}*, number {missing} is not there"
            remedy = "download the others, or name those that are there, such as by a pattern"
            raise DamagedRecordingError(folder, problem, remedy=remedy)


def _document(info: Path) -> object:
    size = info.stat().st_size
    if size > MAX_INFO_BYTES:
        raise RecordingLimitError(info, f"has {size} bytes, and the limit is {MAX_INFO_BYTES}", remedy=COPY)
    try:
        return json.loads(info.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedRecordingError(info, f"cannot be understood ({error})", remedy=COPY) from error


def _declared(document: object, split: str, shard: int, shards: int) -> str | None:
    """The episodes declared for one file of a split, as the text that protobuf's JSON makes of a number."""
    splits = document.get("splits") if isinstance(document, dict) else None
    for entry in splits if isinstance(splits, list) else ():
        lengths = entry.get("shardLengths") if isinstance(entry, dict) and entry.get("name") == split else None
        if isinstance(lengths, list) and len(lengths) == shards and shard < shards and isinstance(lengths[shard], str):
            return str(lengths[shard])
    return None
