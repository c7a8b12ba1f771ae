"""What the leak audit reports: findings and their verdict."""

from __future__ import annotations

from dataclasses import dataclass

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
    """All findings of an audit, in a fixed order."""

    findings: tuple[Finding, ...]

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


def percent(share: float) -> str:
    """Returns a share as text with three digits: "16.7 %"."""
    return f"{100 * share:.3g} %"
