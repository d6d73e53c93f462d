"""A stress report as JUnit XML, which CI servers show: one test case a promise, a counter or a monitor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from robocache.stress.report import Report

# What XML 1.0 cannot hold, even escaped.
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {"FAIL": "failure", "INVALID": "error", "INCONCLUSIVE": "skipped"}


def junit_xml(report: Report) -> str:
    """The document.

    FAIL is a failure, INVALID an error, INCONCLUSIVE a skipped test, which fails nothing and shows.

    Args:
        report: What a run came to.
    """
    name = f"robocache.stress.{report.scenario}"
    suite = ElementTree.Element("testsuite", name=name, time=f"{report.seconds:.3f}")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    cases = [("promises", "FAIL" if report.failures else "PASS", "; ".join(report.failures))]
    cases += [(verdict.counter, verdict.outcome, verdict.why) for verdict in report.verdicts]
    for case, outcome, why in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=name, name=_clean(case), time="0")
        counts["tests"] += 1
        if kind := _ELEMENTS.get(outcome):
            message = ElementTree.SubElement(element, kind, message=_clean(why))
            if kind != "skipped":
                message.set("type", outcome)
                message.text = _clean(why)
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
    for key, count in counts.items():
        suite.set(key, str(count))
    ElementTree.SubElement(suite, "system-out").text = _clean(str(report))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
