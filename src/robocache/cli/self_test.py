"""`robocache self-test`: does the installation compute what it should?"""

from __future__ import annotations

from robocache.cli.console import Printer
from robocache.cli.options import JsonOutput


def command(json_output: JsonOutput = False) -> None:
    """Run every operation on the best device and compare it with its reference."""
    from robocache.ops import self_test

    printer = Printer(json_output=json_output)
    served = self_test()
    printer.document({"passed": True, "operations": served})
    if not json_output:
        printer.table(("operation", "agrees with its reference on"), list(served.items()), left=2)
        printer.say("self-test passed")
