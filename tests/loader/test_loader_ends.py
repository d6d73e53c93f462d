"""Every way out of a loader: no thread, no open episode, no byte, no descriptor stays."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import robocache as rc
from robocache.errors import ClosedError, EpisodeError
from robocache.loader.buffers import Room
from robocache.loader.prefetch import Prefetcher
from robocache.loader.running import Running
from robocache.stress.resources import host_counters, leaked_per_round
from robocache.testing import wait_until

pytestmark = pytest.mark.timeout(120)


def iterations_alive():
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in {Running, Room, Prefetcher}]


def test_a_loop_without_a_block_ends_its_thread_when_it_is_left(make_dataset):
    """Fails when the thread keeps the iteration alive, or the loader keeps it: the fixture counts threads."""
    dataset, before = make_dataset(), threading.active_count()
    loader = rc.Loader(dataset, batch_size=2, memory="12KB", prefetch=1)
    gc.disable()
    try:
        for _ in loader:
            assert threading.active_count() > before
            break
        assert threading.active_count() == before
        for _ in rc.Loader(dataset, batch_size=2, memory="12KB", prefetch=1):
            break
        assert threading.active_count() == before
    finally:
        gc.enable()
    loader.close()
    assert dataset.open_count == 0


def test_what_was_made_and_not_taken_is_given_back(make_dataset):
    """Fails when only a reader that still reads gives back what it claimed."""
    with rc.Loader(make_dataset(), batch_size=2, memory="1MiB", prefetch=1000) as loader:
        batches = iter(loader)
        next(batches)
        wait_until(lambda: not batches._thread.statistics().is_reading)
        held = loader.statistics().held_bytes
        batches.close()
        assert loader.statistics().held_bytes == loader.statistics().packed_bytes < held


def test_breaking_off_again_and_again_leaves_nothing(make_dataset):
    """Fails when an iteration's bytes are not given back, an episode stays open, or a thread is not joined."""
    dataset = make_dataset(lengths=[40] * 6, names=("state", "image"))
    with rc.Loader(dataset, batch_size=2, memory="9KB") as loader:

        def one_round():
            for number, _ in enumerate(loader):
                if number == 3:
                    break

        before = psutil.Process().num_fds()
        # Heap bytes wander with the buffers that wait for their next use, which the loader's own count bounds, and
        # with numpy's caches of small blocks, which fill for some hundred rounds.
        exact = [one for one in host_counters() if one.is_exact and one.name not in {"heap_bytes", "python_blocks"}]
        heap = next(one for one in host_counters() if one.name == "heap_bytes")

        def heap_growth():
            held = heap.read()
            for _ in range(100):
                one_round()
            return heap.read() - held

        # What leaks grows every time; what a busy machine does to the other threads of the process does not.
        assert any(leaked_per_round(one_round, rounds=20, warm_up=5, counters=exact) == {} for _ in range(3))
        assert any(heap_growth() < 100 * 300 for _ in range(3))  # a batch alone has more
        assert psutil.Process().num_fds() == before
        assert iterations_alive() == []
    assert (dataset.open_count, loader.statistics().held_bytes) == (0, 0)


def test_a_kept_batch_is_never_written_again(make_dataset):
    """Fails when a buffer is used again while one view of it lives; and when none is, although nobody has it."""
    dataset = make_dataset(lengths=[40] * 3, names=("state", "image"))
    with rc.Loader(dataset, batch_size=4, memory="1MiB", prefetch=1) as loader:
        kept, copies, addresses = [], [], set()
        for batch in loader:
            kept.append(batch["image"][1:, 0])
            copies.append(kept[-1].clone())
        assert all(view.equal(copy) for view, copy in zip(kept, copies, strict=True))
        del batch
        for batch in loader:
            addresses.add(batch["state"].untyped_storage().data_ptr())
        assert len(addresses) < len(loader) / 2


def test_an_error_of_the_reader_names_the_episode(make_dataset):
    """Fails when the cause is lost, or the loader cannot be used after it."""
    dataset = make_dataset(lengths=[10] * 4, names=("state",), fails_at=2)
    dataset.episode_names = [f"file.mcap/{number}" for number in range(4)]
    with rc.Loader(dataset, batch_size=5, memory=1200, shuffle=False) as loader:
        assert loader.statistics().tier == "disk"
        batches = iter(loader)
        with pytest.raises(EpisodeError, match=r"^episode 2 \(file.mcap/2\) cannot be read: OSError: .*") as caught:
            list(batches)
        assert isinstance(caught.value.__cause__, OSError)
        assert loader.state_dict()["order"]["consumed"] == 20
        assert loader.statistics().failure.startswith("EpisodeError: episode 2")
        with pytest.raises(ClosedError):
            next(batches)
        dataset.fails_at = None
        assert len(list(loader)) == 8
    assert dataset.open_count == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda episode: episode.row.update(image=episode.row["image"] + 99), "row of 'image' points to"),
        (
            lambda episode: episode.offsets.update(cloud=episode.offsets["cloud"] + 9),
            "offsets of 'cloud' do not ascend",
        ),
        (lambda episode: episode.data.update(state=episode.data["state"][:-1]), "data of 'state' has 8 rows, but"),
        (lambda episode: episode.data.update(state=episode.data["state"].astype("f8")), "rows of float64"),
        (lambda episode: episode.valid.pop("flag"), "valid of 'flag' is missing"),
        (lambda episode: episode.data.update(wide=episode.data["wide"][:, ::-1]), "data of 'wide' is not contiguous"),
    ],
)
def test_arrays_that_are_not_what_the_dataset_says_are_refused(make_dataset, damage, message):
    """Fails when an array is read before it was looked at: what is outside of it would be read."""
    dataset = make_dataset()
    damage(dataset.episodes[0])
    with pytest.raises(EpisodeError, match=rf"^episode 0: .*{message}"):
        list(rc.Loader(dataset, batch_size=4))
    assert dataset.open_count == 0


def test_closing_from_another_thread_ends_the_consumer(make_dataset):
    """Fails when a consumer waits for a reader that was told to stop, or reads go on after it."""
    dataset = make_dataset(lengths=[40] * 3)
    loader = rc.Loader(dataset, batch_size=2, memory="12KB")
    started = threading.Event()

    def consume():
        for _ in loader:
            started.set()
            wait_until(lambda: loader._is_closed)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(consume)
        assert started.wait(10)
        loader.close()
        with pytest.raises(ClosedError):
            done.result(timeout=10)
    with pytest.raises(ClosedError, match="the loader is closed"):
        iter(loader)
    assert (dataset.open_count, loader.statistics().held_bytes) == (0, 0)


def test_closing_while_the_reader_waits_for_room(make_dataset):
    """Fails when a claim that waits is not taken out of its line."""
    dataset = make_dataset(lengths=[40] * 3)
    with rc.Loader(dataset, batch_size=4, memory="11KB", prefetch=100) as loader:
        next(iter(batches := iter(loader)))
        wait_until(lambda: loader.statistics().reader_waits)
        batches.close()
        assert loader.statistics().held_bytes == 0
        assert len(list(loader)) == len(loader)


def test_two_loaders_at_once_and_a_second_iteration_ends_the_first(make_dataset, check):
    dataset = make_dataset()
    with rc.Loader(dataset, batch_size=2) as one, rc.Loader(dataset, batch_size=2) as two:
        for first, second in zip(one, two, strict=True):
            check(first, [dataset], 1)
            check(second, [dataset], 1)
        begun = iter(one)
        next(begun)
        next(iter(one))
        with pytest.raises(ClosedError, match="iterate over the loader again"):
            next(begun)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_and_cannot_hang(make_dataset):
    """Fails when the child waits for a thread that it does not have, or takes a lock that its parent held."""
    with rc.Loader(make_dataset(), batch_size=2) as loader:
        batches = iter(loader)
        batch = next(batches)
        child = os.fork()
        if child == 0:
            told = 0
            for use in (lambda: next(batches), lambda: iter(loader)):
                try:
                    use()
                except ClosedError as error:
                    told += "make a Loader in the process that uses it" in str(error)
            del batch
            batches.close()
            loader.close()
            os._exit(0 if told == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(batches)) == len(loader) - 1


def test_a_loader_that_nobody_has_any_more_is_gone(make_dataset):
    """Fails when a thread, a callback or the atexit list keeps it."""
    loader = rc.Loader(make_dataset(), batch_size=2)
    batches = iter(loader)
    next(batches)
    gone = weakref.ref(loader)
    del batches, loader
    gc.collect()
    assert gone() is None


SCRIPT = """
import numpy as np, sys
import robocache as rc
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.testing import MemoryDataset
episode = EpisodeArrays(np.arange(50), {"a": np.zeros((50, 2))}, {"a": np.ones(50, bool)}, {"a": np.zeros(50, "i8")})
dataset = MemoryDataset({"a": Feature("a", "numbers", np.dtype("float64"), (2,))}, [episode])
batches = iter(rc.Loader(dataset, batch_size=4, memory=sys.argv[1]))
print(next(batches)["a"].shape)
"""


@pytest.mark.parametrize("memory", ["1MiB", "2000"])
def test_the_interpreter_exits_cleanly_without_close(memory):
    """Fails when the exit waits for the thread, or it meets a world that is gone."""
    command = [sys.executable, "-c", SCRIPT, memory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
