"""`robocache cache`: what it prints, what it removes, and with which exit code it ends."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from robocache.cache import ShardStore, shard_key
from robocache.cache.sizes import size_bytes
from robocache.cli.console import byte_size
from robocache.cli.main import app
from robocache.errors import ArgumentError


@pytest.fixture
def store(tmp_path):
    """Three shards of 1 kB, 8 kB and 80 kB, the smallest used longest ago."""
    store = ShardStore(tmp_path / "cache")
    for number, size in enumerate((100, 1000, 10_000)):
        key = shard_key([], {"number": number}, 1)
        store.get_or_build(key, lambda size=size: {"x": np.arange(size, dtype="i8")}).close()
        os.utime(store.folder / "shards" / f"{key.digest}.shard", ns=(0, (number + 1) * 10**18))
    return store


def damage(store, index):
    path = store.folder / "shards" / f"{store.ls()[index].digest}.shard"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    stamps = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    return path


def test_ls_shows_sizes_and_the_order_of_use(store, run, document):
    text = run("cache", "ls", store.folder).stdout
    sizes = [info.size_bytes for info in store.ls()]
    shown = [line.split()[0] for line in text.splitlines()[1:-1]]
    assert shown == [info.digest[:12] for info in store.ls()]
    assert text.splitlines()[-1] == f"{store.folder}: 3 shards, {sum(sizes) / 1000:.3g} kB"
    printed = document("cache", "ls", store.folder)
    assert [shard["size_bytes"] for shard in printed["shards"]] == sizes
    assert printed["size_bytes"] == sum(sizes)


def test_verify_ends_with_1_when_something_is_damaged(store, run):
    """Fails when damage leaves exit code 0, is not named, or is removed unasked."""
    assert run("cache", "verify", store.folder).stdout.rstrip().endswith("3 shards, 89.6 kB: 0 damaged")
    path = damage(store, 1)
    for arguments, is_there in ((["verify"], True), (["verify", "--remove"], False)):
        result = CliRunner().invoke(app, ["cache", *arguments, str(store.folder)])
        assert result.exit_code == 1
        assert f"{path}, array 'x': the checksum" in result.stdout
        assert len(re.findall(r"^checking \d/3", result.stderr, re.MULTILINE)) == 3
        assert path.exists() == is_there
    assert "2 shards" in run("cache", "verify", store.folder).stdout


def test_verify_as_json_names_the_damaged(store):
    path = damage(store, 0)
    result = CliRunner().invoke(app, ["cache", "verify", str(store.folder), "--json"])
    assert result.exit_code == 1
    assert f'"digest": "{path.stem}"' in result.stdout
    assert '"is_removed": false' in result.stdout


def test_gc_keeps_what_was_used_last(store, document, run):
    """Fails when --limit is read wrongly, or the order of use is not kept."""
    last = store.ls()[-1]
    (store.folder / "partial" / "left").write_bytes(bytes(5000))
    printed = document("cache", "gc", store.folder, "--limit", "0.081 MB")
    assert [info.digest for info in store.ls()] == [last.digest]
    assert (printed["leftover_bytes"], printed["left_bytes"]) == (5000, last.size_bytes)
    with store.open(shard_key([], {"number": 2}, 1)):
        assert "the others are open" in run("cache", "gc", store.folder, "--limit", "0").stdout
    assert "evicted 0 shards" in run("cache", "gc", store.folder).stdout
    assert "evicted 1 shard, 80.3 kB" in run("cache", "gc", store.folder, "--limit", "0").stdout


def test_without_a_folder_it_is_the_one_that_build_takes(store, run, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBOCACHE_CACHE", str(store.folder))
    for command in ("ls", "verify", "gc"):
        assert f"{store.folder}: " in run("cache", command).stdout
    monkeypatch.setenv("ROBOCACHE_CACHE", str(tmp_path / "none"))
    result = CliRunner().invoke(app, ["cache", "ls"])
    assert (result.exit_code, f"error: {tmp_path / 'none'}: " in result.stderr) == (2, True)


@pytest.mark.parametrize("command", ["ls", "verify", "gc"])
def test_a_folder_that_is_no_cache_is_one_line(tmp_path, command):
    """Fails when looking at a folder makes a cache of it."""
    result = CliRunner().invoke(app, ["cache", command, str(tmp_path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {tmp_path}: is not a cache")
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_takes_its_empty_cache_away(cloud_recording, tmp_path):
    """Fails when a limit too small for an episode leaves a cache without shards, or one that was there goes too."""
    build = ["build", str(cloud_recording), "--rate", "10", "--cache", str(tmp_path / "new" / "cache")]
    refused = CliRunner().invoke(app, [*build, "--cache-limit", "10"])
    assert (refused.exit_code, "may hold 10; raise the cache's limit" in refused.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(app, build).exit_code == 0
    refused = CliRunner().invoke(app, [*build, "--streams", "nothing"])
    assert (refused.exit_code, len(ShardStore(tmp_path / "new" / "cache").ls())) == (2, 1)
    refused = CliRunner().invoke(app, [*build, "--cache-limit", "0"])
    assert refused.stderr.startswith("error: --cache-limit must be a size")


def test_sizes_are_read_as_people_write_them():
    texts = ("0", "12", "20GB", "1.5 MiB", "3kB", "3KB", "2TiB")
    read = {text: size_bytes(text, "--limit", at_least=0) for text in texts}
    assert list(read.values()) == [0, 12, 20 * 10**9, 3 * 2**19, 3000, 3000, 2 * 2**40]
    for text in ("", "GB", "-1", "1e9", "5 parsecs", "1_000", "٣GB", "nan"):
        with pytest.raises(ArgumentError, match="--limit"):
            size_bytes(text, "--limit")


def test_sizes_are_written_as_people_read_them():
    written = [byte_size(size) for size in (0, 999, 1000, 999_499, 999_500, 20 * 10**9, 10**15)]
    assert written == ["0 B", "999 B", "1 kB", "999 kB", "1 MB", "20 GB", "1 PB"]
