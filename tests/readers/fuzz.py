"""Coverage-guided fuzzing of the readers with atheris.

python -m tests.readers.fuzz run [TARGET ...] --seconds 60 --finds fuzz-finds
python -m tests.readers.fuzz replay TARGET FILE
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

# In memory where the system has such a folder: a file is written for each execution.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SLOWER = 5  # how much instrumented code may be
MODULES = ("robocache.readers", "robocache.integrations")


def imported(instrumented):
    """The targets; with atheris every module of the readers is imported inside its hook, or it would see nothing."""
    context = nullcontext()
    if instrumented:
        import atheris

        context = atheris.instrument_imports(include=["robocache"], enable_loader_override=False)
    with context:
        for package in map(importlib.import_module, MODULES):
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                if not module.name.endswith("_child"):
                    importlib.import_module(module.name)
        from tests.readers.fuzz_targets import TARGETS
    return TARGETS


def fuzz(name, seconds, finds):
    """Fuzz one target in this process, which ends with it."""
    import atheris

    target = imported(instrumented=True)[name]
    from tests.readers.fuzz_contract import FindError, judged

    with tempfile.TemporaryDirectory() as folder, target.opened() as run:
        corpus, work = Path(folder, "corpus"), Path(folder, "work")
        corpus.mkdir()
        work.mkdir()
        for number, seed in enumerate(target.seeds(work)):
            (corpus / str(number)).write_bytes(seed)
            run(seed)

        def one(data):
            try:
                judged(run, data)
            except FindError:  # it counts if it is slow or large without atheris too
                suspect = Path(folder, "suspect")
                suspect.write_bytes(data)
                if replayed(name, suspect).returncode:
                    raise

        limits = [f"-max_total_time={seconds}", f"-timeout={10 * SLOWER}", "-rss_limit_mb=4000", "-max_len=100000"]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={finds}/{name}-", str(corpus)], one)
        atheris.Fuzz()


def replayed(name, file):
    command = [sys.executable, "-m", "tests.readers.fuzz", "replay", name, str(file)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def run_all(names, seconds, finds):
    """Fuzz targets one after the other, each in a process of its own; how many have a find."""
    if find_spec("atheris") is None:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]'")
    targets, found = imported(instrumented=False), 0
    finds.mkdir(parents=True, exist_ok=True)
    for name in names or targets:
        missing = [package for package in targets[name].needs if find_spec(package) is None]
        if missing:
            print(f"{name}: left out, for {missing[0]} is not installed")
            continue
        before = set(finds.iterdir())
        command = [sys.executable, "-m", "tests.readers.fuzz", "one", name, "--seconds", str(seconds)]
        # A process that a library ends leaves its files behind.
        with tempfile.TemporaryDirectory(prefix="robocache-fuzz-", dir=MEMORY) as folder:
            done = subprocess.run(
                [*command, "--finds", str(finds)],
                check=False, capture_output=True, text=True, errors="replace", env={**os.environ, "TMPDIR": folder},
            )  # fmt: skip
        new = sorted(set(finds.iterdir()) - before)
        steps = re.findall(r"^#(\d+)\s.*?cov: (\d+)", done.stderr, re.MULTILINE)
        runs, places = steps[-1] if steps else (0, 0)
        says = "a find" if done.returncode else "nothing found"
        print(f"{name}: {says} in {runs} runs, which came to {places} places of the code", flush=True)
        if done.returncode:
            found += 1
            print(done.stdout[-2000:] + done.stderr[-2000:])
        for file in new:
            print(f"  replay it: python -m tests.readers.fuzz replay {name} {file}", flush=True)
    return found


def replay(name, file):
    """What a target makes of the bytes of a file; a find is raised."""
    from tests.readers.fuzz_contract import judged

    target = imported(instrumented=False)[name]
    with tempfile.TemporaryDirectory() as folder, target.opened() as run:
        for seed in target.seeds(Path(folder)):
            run(seed)  # what is imported and kept for good counts no more
        print(f"{file}: {'accepted' if judged(run, file.read_bytes()) else 'refused'}, as it should be")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["run", "one", "replay"])
    parser.add_argument("names", nargs="*", metavar="TARGET", help="all, where none is named; replay: TARGET FILE")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="the folder for what was found")
    options = parser.parse_args(arguments)
    if options.what == "one":
        fuzz(options.names[0], options.seconds, options.finds)
    elif options.what == "replay":
        replay(options.names[0], Path(options.names[1]))
    else:
        sys.exit(run_all(options.names, options.seconds, options.finds) > 0)


if __name__ == "__main__":
    main()
