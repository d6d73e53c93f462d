"""`robocache self-test`: does the installation compute what it should?"""

from __future__ import annotations

from typing import Annotated

import typer

from robocache.cli.console import Printer


def command(json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Run every operation on the best device and compare it with its reference."""
    from robocache.ops import self_test

    printer = Printer(json_output=json_output)
    served = self_test()
    printer.document({"passed": True, "operations": served})
    if not json_output:
        printer.table(("operation", "agrees with its reference on"), list(served.items()), left=2)
        printer.say("self-test passed")
