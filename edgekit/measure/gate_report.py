"""What a gate found, for people and for CI: a table, Markdown, JUnit XML and GitHub's annotations. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from .gate import FAILING, Check, GateResult, Outcome
from .metrics import METRICS
from .report import markdown_grid

SYMBOLS: dict[Outcome, str] = {
    "pass": "✓",
    "within noise": "≈",
    "fail": "✗",
    "missing": "✗",
    "not comparable": "?",
    "skipped": "–",
}
HEADERS = ("row", "metric", "baseline", "now", "change", "limit", "noise", "sure from", "runs", "outcome")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def headline(result: GateResult) -> str:
    """One sentence: passed or failed, and how many checks did what."""
    total, failed = len(result.checks), len(result.failures)
    if not result.passed:
        return f"Gate failed: {failed} of {total} checks against {result.baseline}."
    others = [c.outcome for c in result.checks if c.outcome not in ("pass", *FAILING)]
    told = [f"{others.count(outcome)} {outcome}" for outcome in dict.fromkeys(others)]
    return f"Gate passed: {total} checks against {result.baseline}{', of them ' + ', '.join(told) if told else ''}."


def gate_cells(check: Check) -> list[str]:
    """One check as printed, in the order of ``HEADERS``."""
    return [
        check.row,
        METRICS[check.metric].title if check.metric in METRICS else check.metric,
        _value(check, check.base),
        _value(check, check.new),
        _change(check),
        check.limit,
        "-" if check.noise is None else f"±{check.noise:.1%}",
        "-" if check.sure_from is None else f"{check.sure_from:.1%}",
        f"{check.runs[0]} / {check.runs[1]}" if any(check.runs) else "-",
        f"{SYMBOLS[check.outcome]} {check.outcome}",
    ]


def _value(check: Check, value: float | None) -> str:
    return "-" if value is None else METRICS[check.metric].text(value)


def _change(check: Check) -> str:
    """Points where the metric is in percent, else percent."""
    if check.base is None or check.new is None:
        return "-"
    if check.unit == "%":
        return f"{check.new - check.base:+.2f} pt"
    return "-" if check.change is None else f"{check.change:+.1%}"


def told(check: Check) -> str:
    """A check that did not simply pass, in one sentence."""
    change = _change(check)
    moved = f" ({change})" if change != "-" else ""
    return f"{check.row}: {check.metric} {check.outcome}{moved}: {check.reason}; limit {check.limit}"


def render_gate(result: GateResult) -> str:
    """Markdown: the headline, what failed, the table, the notes."""
    failed = [f"- {told(check)}" for check in result.failures]
    parts = [
        f"## {'✅' if result.passed else '❌'} {headline(result)}",
        "\n".join(failed),
        markdown_grid(HEADERS, [gate_cells(check) for check in result.checks]),
        "\n".join(f"- {note}" for note in result.notes),
        f"Baseline: `{result.baseline}`. Report: {', '.join(f'`{name}`' for name in result.reports)}. "
        "A varying figure fails only where it is beyond its limit by more than the noise of the runs; "
        "*sure from* is the change that fails 99 times in 100, if later runs vary as these were seen to.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def junit_xml(result: GateResult) -> str:
    """JUnit's XML: a test suite per row, a test case per metric. A check that was skipped is a skipped test."""
    rows = dict.fromkeys(check.row for check in result.checks)
    root = ElementTree.Element("testsuites", {"name": "edgekit gate", **_counts(list(result.checks))})
    for row in rows:
        checks = [check for check in result.checks if check.row == row]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(row), **_counts(checks)})
        for check in checks:
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(row), name=check.metric, time="0")
            _finding(case, check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _counts(checks: list[Check]) -> dict[str, str]:
    failures = sum(check.outcome in FAILING for check in checks)
    skipped = sum(check.outcome == "skipped" for check in checks)
    return {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _finding(case: ElementTree.Element, check: Check) -> None:
    if check.outcome in FAILING:
        found = ElementTree.SubElement(case, "failure", type=check.outcome.replace(" ", "-"), message=_xml(told(check)))
        found.text = _xml("\n".join(f"{name}: {text}" for name, text in zip(HEADERS, gate_cells(check), strict=True)))
    elif check.outcome == "skipped":
        ElementTree.SubElement(case, "skipped", message=_xml(check.reason))


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold; a report may name anything."""
    return _NOT_XML.sub("\ufffd", text)


def github_annotations(result: GateResult) -> Iterator[str]:
    """GitHub Actions' workflow commands, one line each: an error for a failure, a warning for what was not checked."""
    levels = {**dict.fromkeys(FAILING, "error"), "skipped": "warning", "within noise": "notice"}
    for check in result.checks:
        if check.outcome in levels:
            title = f"EdgeKit gate: {check.metric}"
            yield f"::{levels[check.outcome]} title={_escape(title, ':,')}::{_escape(told(check))}"
    for note in result.notes:
        yield f"::notice title=EdgeKit gate::{_escape(note)}"


def _escape(text: str, more: str = "") -> str:
    for char in "%\r\n" + more:  # the percent sign first: the others become one
        text = text.replace(char, f"%{ord(char):02X}")
    return text
