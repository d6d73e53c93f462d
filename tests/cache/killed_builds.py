"""A process that builds and is killed again and again, for the tests: `killed_builds.py FOLDER KILLS`.

Every build is a fork of this process, which has imported everything already, so that a kill costs milliseconds. Prints
after each kill how many shards there are, whether the build had ended by itself, and how many shards are not whole.
"""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

import robocache
from robocache.cache import ShardStore
from robocache.readers import SyntheticRobot

ROBOT = partial(SyntheticRobot, 3, duration_s=1.0, lidar_points=2048)
SPEC = robocache.Align(robocache.Rate(50))


def started(folder, episodes):
    child = os.fork()
    if child == 0:
        robocache.build(partial(ROBOT, episodes=episodes), SPEC, folder, workers=1)
        os._exit(0)
    return child


def seconds_of_an_episode(folder):
    """From the fork to the end, in this moment's weather."""
    begin = time.perf_counter()
    os.waitpid(started(folder, 1), 0)
    return time.perf_counter() - begin


def main(folder, kills):
    torch.set_num_threads(1)
    generator = random.Random(0)
    for number in range(int(kills)):
        if number % 10 == 0:
            one_s = seconds_of_an_episode(f"{folder}.timed{number}")
        child = started(folder, 80)
        time.sleep(generator.uniform(0, 1.5 * one_s))  # slow on purpose
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        shards = len(list((Path(folder) / "shards").glob("*.shard")))
        bad = sum(checked.problem is not None for checked in ShardStore(folder).verify()) if shards else 0
        print(shards, int(os.WIFEXITED(status)), bad, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
