"""A fuse of fixed tensors, launched again and again: for loops where the launch itself counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robocache.errors import ArgumentError
from robocache.ops.backends import choose_backend, kernels
from robocache.ops.fuse_multimodal import fuse_streams
from robocache.records import Fused, Stream


class FusionPlan:
    """`fuse_streams` over tensors that stay where they are, into a result that stays where it is.

    Everything is checked, chosen and allocated once. A call reads what the streams' tensors hold at that moment (copy
    new samples into them with `copy_`), overwrites `result` and returns it. On a GPU a call costs one launch, on the
    current stream; whoever still reads the last result on another stream must be waited for first.

    Args:
        streams: By name, as for `fuse_streams`. The plan keeps the tensors; they must not be resized.
        target_times: [batch, target], kept likewise.
        graph: Capture the launch in a CUDA graph, for capture-based pipelines; needs a GPU.
        backend: As for `fuse_streams`.

    Raises:
        ArgumentError: `graph=True` without a GPU, or streams that want a gradient.
        RoboCacheError: Whatever `fuse_streams` raises for such streams.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        target_times: Tensor,
        *,
        graph: bool = False,
        backend: str | None = None,
    ) -> None:
        self.streams = dict(streams)
        self.target_times = target_times
        self.result: Fused = fuse_streams(self.streams, target_times, backend=backend)
        for name, stream in self.streams.items():
            if stream.data.requires_grad:
                raise ArgumentError(f"streams[{name!r}].data requires a gradient, which a plan does not keep")
        self._backend = choose_backend(backend, target_times.device.type)
        if graph and self._backend != "cuda":
            raise ArgumentError(f"graph=True needs the cuda backend, but {self._backend!r} serves these streams")
        self._run: Callable[[], object] = self._launcher() if self._backend == "cuda" else self._compute
        if graph:
            self._run = self._captured(self._run)

    def __call__(self) -> Fused:
        """Fuse what the streams hold now; the same `result` every time."""
        self._run()
        return self.result

    def _compute(self) -> None:
        fresh = fuse_streams(self.streams, self.target_times, backend=self._backend)
        self.result.data.copy_(fresh.data)
        self.result.valid.copy_(fresh.valid)

    def _launcher(self) -> Callable[[], object]:
        parts = list(self.streams.values())
        data, times = [part.data for part in parts], [part.times for part in parts]
        policies, lengths = [part.policy for part in parts], [part.lengths for part in parts]
        module = kernels("fuse_multimodal")
        plan = module.FusePlan(data, times, self.target_times, policies, lengths, with_valid=True)
        tensors = module.flat(data, times, self.target_times, lengths)
        launch: Callable[[], object] = plan.bound(tensors, (self.result.data, self.result.valid))
        return launch

    def _captured(self, run: Callable[[], object]) -> Callable[[], object]:
        # Capture on a side stream, after a run there: PyTorch's own recipe.
        side = torch.cuda.Stream(self.target_times.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.target_times.device))
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream(self.target_times.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay
