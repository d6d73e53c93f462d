"""Train on a LeRobot dataset: python examples/lerobot_training_loop.py data/pick --cache cache

Cameras are decoded once, at 96 x 96, into the cache; this policy does not look at them, a real one would.
"""

from __future__ import annotations

import argparse

import torch

from robocache.integrations.lerobot import LeRobotDataset

CHUNK = 10


def main(arguments: list[str] | None = None) -> int:
    """Fit actions by a linear map of the state; 0: the loss went down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="a LeRobot v3.0 or v2.1 folder with observation.state and action")
    parser.add_argument("--cache", help="folder for decoded frames; without it they are decoded for each batch")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args(arguments)

    frame_rate = LeRobotDataset("local/data", root=options.root).fps
    chunk = {"action": [step / frame_rate for step in range(CHUNK)]}
    dataset = LeRobotDataset(
        "local/data", options.root, delta_timestamps=chunk, size=(96, 96), cache=options.cache, return_uint8=True
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    first = next(iter(loader))
    policy = torch.nn.Linear(first["observation.state"].shape[-1], first["action"][0].numel())
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    losses: list[float] = []
    while len(losses) < options.steps:
        for batch in loader:
            if len(losses) == options.steps:
                break
            predicted = policy(batch["observation.state"]).view_as(batch["action"])
            counts = ~batch["action_is_pad"].unsqueeze(-1)  # what is beyond the episode's end is no target
            loss = ((predicted - batch["action"]).square() * counts).sum() / (counts.sum() * predicted.shape[-1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    print(f"{len(losses)} steps: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    return 0 if losses[-1] < losses[0] else 1


if __name__ == "__main__":
    raise SystemExit(main())
