"""Run as a program: runs other programs as ranks under torch.distributed, each a fork of this process.

Importing PyTorch takes a rank longer than all it does in a test; here it is imported once.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch.distributed  # noqa: F401 -- for the ranks

import robocache.testing  # noqa: F401


def rank(job, number):
    """Never returns."""
    code = 1
    try:
        sys.argv = ["rank", json.dumps(job | {"rank": number})]
        with Path(job["meeting"] + f".{number}").open("w") as output:
            os.dup2(output.fileno(), 1)
            exec(job["program"], {"__name__": "__main__"})
            sys.stdout.flush()
        code = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, this process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def main():
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for number in range(job["world_size"]):
            child = os.fork()
            if not child:
                rank(job, number)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
