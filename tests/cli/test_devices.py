"""A device that is not there is refused before anything runs, by every command that takes one."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from robocache.cli.main import app

COMMANDS = [
    ["bench", "ops", "--quick"],
    ["burn-in", "--seconds", "2"],
    ["soak", "nothing", "--seconds", "2"],
    ["stress", "run", "burn-in", "--seconds", "2"],
    ["stress", "kill-matrix"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_device_of_another_name(command):
    """Fails when what PyTorch raises comes through. Seen to fail with the option taken as it is."""
    result = CliRunner().invoke(app, [*command, "--device", "tpu"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: --device must be cuda or cpu, got 'tpu'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_gpu_that_is_not_there(command):
    """Fails when the CPU serves instead, or a traceback says it."""
    result = CliRunner().invoke(app, [*command, "--device", "cuda"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: --device cuda cannot run: ")
