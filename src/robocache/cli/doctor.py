"""`robocache doctor`: what runs where, and why."""

from __future__ import annotations

import shutil
from typing import Any

from robocache.cli.console import Printer
from robocache.cli.options import JsonOutput

COMPILERS = ("cc", "g++", "clang++", "nvcc")


def command(json_output: JsonOutput = False) -> None:
    """Print versions, devices, which backend serves each operation and why, and which formats can be read.

    Where there is a GPU, a small kernel of each operation is launched, to see how launches go.
    """
    from robocache.ops.installation import check_installation, try_launches

    printer = Printer(json_output=json_output)
    launches = try_launches()
    found = check_installation() | {"launches": launches}
    found["compilers"] = {name: shutil.which(name) for name in COMPILERS}
    printer.document(found)
    if not json_output:
        _print(printer, found)


def _print(printer: Printer, found: dict[str, Any]) -> None:
    printer.say(f"RoboCache {found['robocache']} on Python {found['python']}, {found['platform']}")
    printer.say(
        f"PyTorch {found['torch']}, CUDA {found['cuda'] or 'none'}, Triton {found['triton'] or 'not installed'}"
    )
    printer.say(f"GPU: {found['gpu'] or 'none'}" + (f" ({found['cuda_problem']})" if found["cuda_problem"] else ""))
    printer.say()
    rows = [
        (operation, device, how["backend"] or "cannot run", how["reason"])
        for operation, devices in found["operations"].items()
        for device, how in devices.items()
    ]
    printer.table(("operation", "on", "runs on", "why"), rows, left=4)
    printer.say()
    _print_launches(printer, found)
    printer.say()
    readers = [
        (name, "can be read" if is_there else f"needs pip install 'robocache[{name}]'")
        for name, is_there in found["readers"].items()
    ]
    printer.table(("format", ""), readers, left=2)
    printer.say()
    printer.table(("compiler", ""), [(name, path or "not found") for name, path in found["compilers"].items()], left=2)


def _print_launches(printer: Printer, found: dict[str, Any]) -> None:
    if found["cuda_problem"]:
        printer.say(f"kernels: none was launched ({found['cuda_problem']})")
        return
    printer.table(("kernel", "now"), list(found["launches"].items()), left=2)
    for problem in found["launch_problems"]:
        printer.say(f"kernels are launched the slower way: {problem}")
    if "launched" in found["launches"].values() and not found["launch_problems"]:
        printer.say("kernels are launched the quick way: the driver is called directly")
