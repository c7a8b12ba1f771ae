"""What the leak audit reports: findings and their verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1  # of the JSON
LEAK, FACT, CLEAR, UNKNOWN = "leak", "fact", "clear", "not checked"


@dataclass(frozen=True)
class Finding:
    """One check of the audit. severity: "leak", "fact" (worth knowing, not a leak by itself), "clear" or "not checked".
    count: of what `name` says. reason: the text of a leak in the verdict."""

    name: str
    severity: str
    count: int = 0
    example: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All findings of an audit, in a fixed order, and the trials of each part."""

    findings: tuple[Finding, ...]
    parts: Mapping[str, int] = field(default_factory=dict)  # trials of each part that has any

    @property
    def leaky(self) -> bool:
        """Whether any finding is a leak."""
        return any(finding.severity == LEAK for finding in self.findings)

    @property
    def verdict(self) -> str:
        """"no", or "yes: <reasons>"; equal data give equal text."""
        return "yes: " + "; ".join(f.reason for f in self.findings if f.reason) if self.leaky else "no"

    def render(self) -> str:
        """Returns the findings as a plain-text table, followed by the verdict."""
        rows = [("finding", "is", "count", "")]
        rows += [(f.name, f.severity, "" if f.severity == UNKNOWN else str(f.count), f.example) for f in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{widths[0]}s}  {b:{widths[1]}s}  {c:>{widths[2]}s}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:], "", f"leaky: {self.verdict}"])

    @property
    def unchecked(self) -> str:
        """The names of the checks that were not possible, each with its reason; "" if all were."""
        return "; ".join(f"{f.name} ({f.example})" for f in self.findings if f.severity == UNKNOWN)

    def as_dict(self) -> dict[str, Any]:
        """Returns verdict, trials of each part and findings for JSON; the count of what is not checked is None."""
        findings = [{**asdict(f), "count": None if f.severity == UNKNOWN else f.count} for f in self.findings]
        return {"leaky": self.leaky, "verdict": self.verdict, "trials": dict(self.parts), "findings": findings}


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Returns a document of reports as JSON, with the version of its form as `schema`."""
    return (json.dumps({"schema": SCHEMA, **document}, indent=1) + "\n").encode()


def percent(share: float) -> str:
    """Returns a share as text with three digits: "16.7 %"."""
    return f"{100 * share:.3g} %"
