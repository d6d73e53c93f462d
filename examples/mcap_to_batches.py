"""From a folder of MCAP logs to shuffled training batches: python examples/mcap_to_batches.py 'runs/*.mcap'"""

from __future__ import annotations

import argparse

import robocache as rc


def main(arguments: list[str] | None = None) -> int:
    """Print the first batches; 0: done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", help="an MCAP file, a folder of them, or a pattern in quotes")
    parser.add_argument("--rate", type=float, default=50, help="frames a second")
    parser.add_argument("--cache", default="cache", help="folder of the aligned episodes")
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args(arguments)

    # Every stream, each with the policy that suits its kind; give `streams=` to choose. See docs/align.md.
    spec = rc.Align(rc.Rate(options.rate))
    dataset = rc.open(options.recordings, spec, cache=options.cache, workers=1)
    dataset.build()  # in this process; without `workers=1` in several, which want `if __name__ == "__main__"`

    with rc.Loader(dataset, batch_size=32, window=16, memory="512MiB", seed=0) as loader:
        for number, batch in enumerate(loader, start=1):
            print(f"batch {number}:")
            for name, values in batch.items():
                print(f"  {name} {tuple(values.shape)}, {batch.valid[name].float().mean():.1%} valid")
            if number == options.batches:
                break
        state = loader.state_dict()  # JSON can hold it

    with rc.Loader(dataset, batch_size=32, window=16, memory="512MiB", seed=0) as resumed:
        resumed.load_state_dict(state)
        print(f"resumed after {number} batches; {len(resumed)} are left of this epoch")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
