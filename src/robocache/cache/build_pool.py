"""Processes that build shards side by side.

They are started, not forked: a fork would copy the locks of threads. Nor does it go through `multiprocessing`, which
runs the user's script again in each of them. Each has a socket of its own; when this process goes, however it goes, the
sockets close and the workers end after the episode in hand.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType

from robocache.cache.build_worker import Failed, Finished, Job
from robocache.cache.units import Unit
from robocache.errors import ArgumentError, BuildError

# Not `-m`, under which the classes that travel would belong to `__main__`.
_MAIN = "import sys; from robocache.cache.build_worker import main; main(sys.argv[1:])"
_GRACE_S = 5.0  # for a worker that has been told to end


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    left: int = 0  # units of the run in hand that have not been answered


class BuildPool:
    """Workers for one build; a context manager that ends them on every way out.

    Args:
        job: What all units share.
        workers: How many processes.

    Raises:
        ArgumentError: The job cannot be sent to another process.
    """

    def __init__(self, job: Job, workers: int) -> None:
        try:
            self._job = pickle.dumps(job)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            message = f"source cannot be sent to other processes ({error}): name a path, or a function of a module"
            raise ArgumentError(f"{message}, or build with workers=1") from error
        self._count = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> BuildPool:
        try:
            for _ in range(self._count):
                self._workers.append(_start(self._job))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def results(self, runs: Sequence[Sequence[Unit]]) -> Iterator[Finished]:
        """Build all units, a run to a worker at a time; gives them as they are finished.

        Args:
            runs: Units that belong together.

        Raises:
            BuildError: A worker died.
            RoboCacheError: What a worker raised.
        """
        waiting = deque(runs)
        for worker in self._workers:
            _next_run(worker, waiting)
        while True:
            busy = {worker.connection: worker for worker in self._workers if worker.left}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # only connections were waited for
                result = _received(worker)
                worker.left -= 1
                if not worker.left:
                    _next_run(worker, waiting)
                yield result

    def _end(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            try:
                worker.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()


def _start(job: bytes) -> _Worker:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", _MAIN, str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
        )
        connection = Connection(ours.detach())
    try:
        connection.send(list(sys.path))
        connection.send_bytes(job)
    except OSError:  # it has died already; whoever reads from it is told
        pass
    return _Worker(process, connection)


def _next_run(worker: _Worker, waiting: deque[Sequence[Unit]]) -> None:
    if waiting:
        run = waiting.popleft()
        worker.left = len(run)
        try:
            worker.connection.send(list(run))
        except OSError:  # noted when it is read from
            return


def _received(worker: _Worker) -> Finished:
    try:
        result: Finished | Failed = worker.connection.recv()
    except (EOFError, ConnectionResetError) as error:
        code = worker.process.wait()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        message = f"a process that builds ended ({ended}); finished shards stay"
        raise BuildError(f"{message}: run it again with fewer workers if memory was short") from error
    if isinstance(result, Failed):
        result.error.add_note(f"In a process that builds:\n{result.text}")
        raise result.error
    return result
