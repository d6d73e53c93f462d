"""What a cache remembers of a data set: the shards of its episodes, their lengths, and the files that were hashed.

It saves reading again. Lengths belong to keys, digests to files as they were, so a manifest that is old is never wrong;
one that is gone, damaged or of another version is made anew.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robocache.cache.folder import UNFINISHED, CacheFolder
from robocache.cache.layout import canonical_json

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What is known.

    Args:
        source: The recording's path.
        episodes: (name, digest of its shard's key), in order.
        frames: By digest.
        features: As JSON; None while no shard has been seen.
        files: Digests of files, as `key.remembered` gives them.
    """

    source: str
    episodes: Sequence[tuple[str, str]]
    frames: Mapping[str, int] = field(default_factory=dict)
    features: Any = None
    files: Sequence[Sequence[Any]] = ()


def read_manifest(folder: CacheFolder, name: str) -> Manifest | None:
    """The manifest of that name, if there is one that can be believed."""
    return _read(folder.manifests / f"{name}.json")


def write_manifest(folder: CacheFolder, name: str, manifest: Manifest) -> None:
    """Write it whole, or not at all: where the folder may not be written to, or is full, nothing is remembered."""
    document = {
        "version": MANIFEST_VERSION,
        "source": manifest.source,
        "episodes": [list(episode) for episode in manifest.episodes],
        "frames": dict(manifest.frames),
        "features": manifest.features,
        "files": [list(entry) for entry in manifest.files],
    }
    text = canonical_json(document, "manifest")
    with suppress(OSError), folder.changing():
        partial = folder.manifests / f"{UNFINISHED}{name}.{secrets.token_hex(8)}"
        try:
            partial.write_text(f"{zlib.crc32(text.encode('ascii')):08x}\n{text}\n", encoding="ascii")
            partial.replace(folder.manifests / f"{name}.json")
        finally:
            partial.unlink(missing_ok=True)


def shard_names(folder: Path) -> dict[str, tuple[str, str]]:
    """Recording and episode of the shards that manifests know, by digest.

    Args:
        folder: Of the cache.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((folder / "manifests").glob("*.json")):
        manifest = _read(path)
        if manifest is not None:
            found |= {digest: (manifest.source, name) for name, digest in manifest.episodes}
    return found


def _read(path: Path) -> Manifest | None:
    try:
        head, text = path.read_text(encoding="ascii").split("\n", 1)
        text = text.removesuffix("\n")
        if int(head, 16) != zlib.crc32(text.encode("ascii")):
            return None
        document = json.loads(text)
        if document["version"] != MANIFEST_VERSION:
            return None
        episodes = [(str(name), str(digest)) for name, digest in document["episodes"]]
        frames = {str(digest): int(count) for digest, count in document["frames"].items()}
        return Manifest(str(document["source"]), episodes, frames, document["features"], document["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
