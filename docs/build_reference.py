"""Writes docs/reference.md from the code: settings, metrics, alerts, exit codes and the reasons in labels and headers.

python docs/build_reference.py            write the document
python docs/build_reference.py --check    write nothing; exit 1 when the document is stale
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
# Run as a file, Python looks in docs/ and not in the repository: the imports of the product have to come after this line.
sys.path.insert(0, str(ROOT))

from intentrec_core.errors import BundleFault, RejectReason  # noqa: E402
from stream.cli.root import EXIT_CODES  # noqa: E402
from stream.ops.metrics import Metrics  # noqa: E402
from stream.settings import PREFIX, Settings  # noqa: E402

DOCUMENT = ROOT / "docs" / "reference.md"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

INTRODUCTION = """\
# Reference

This file is generated from the code by `python docs/build_reference.py`. Do not edit it. What to do with all of this is in
[operations.md](operations.md).

## Settings

A setting is read from the environment under the prefix `INTENTREC_`. A command line option of the same meaning wins. An
unknown name with the prefix is refused (exit code 2), and so is a value outside the limits. An empty value means the default.

"""
COMPLETION = """\
## Shell completion

`intentrec --install-completion` makes bash, zsh, fish or PowerShell complete commands and options with the Tab key, from the next
shell on. `intentrec --show-completion` prints what it would install.
"""
#: Limits of a field by the name that pydantic gives them.
_LIMITS = (("ge", "≥ {}"), ("gt", "> {}"), ("le", "≤ {}"), ("lt", "< {}"), ("pattern", "`{}`"))


def build() -> str:
    """The text of the document."""
    parts = [INTRODUCTION + _table(("setting", "default", "allowed", "meaning"), _settings())]
    parts.append(
        "## Metrics\n\nEach process serves them on `/metrics`. A label is an enum, an intent or a bundle version, "
        "never a member,\na session, an item or an offset. A histogram has the suffixes `_bucket`, `_sum` and `_count`.\n\n"
        + _table(("metric", "type", "labels", "meaning"), _metrics())
    )
    parts.append(
        "## Alerts\n\nThe rules are in [alerts.yml](../deploy/prometheus/alerts.yml).\n\n"
        + _table(("alert", "severity", "summary", "impact on members", "first action"), _alerts())
    )
    parts.append(COMPLETION)
    codes = [(f"`{number}`", meaning) for number, meaning in _exit_codes()]
    parts.append("## Exit codes\n\n" + _table(("code", "meaning"), codes))
    reasons = "\n".join(f"- `{reason.value}`" for reason in RejectReason)
    faults = "\n".join(f"- `{fault.value}`" for fault in BundleFault)
    parts.append(
        "## Reasons of dead letters\n\nThe header `intentrec-error` and the label `reason` of `intentrec_plays_rejected_total`.\n"
        f"[messages.md](messages.md#a-rejected-play) explains them. The set only grows.\n\n{reasons}\n"
    )
    parts.append(
        "## Reasons of refused bundles\n\nThe label `reason` of `intentrec_bundle_rejections_total`. The set only grows.\n\n"
        f"{faults}\n"
    )
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write or check the reference of settings, metrics and alerts.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the document is stale")
    options = parser.parse_args(arguments)
    text = build()
    if options.check:
        if not DOCUMENT.is_file() or DOCUMENT.read_text(encoding="utf-8") != text:
            print("docs/reference.md is stale: run python docs/build_reference.py", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


def _settings() -> Iterable[tuple[str, ...]]:
    for name, field in Settings.model_fields.items():
        yield f"`{PREFIX}{name.upper()}`", _default(field), _allowed(field), field.description or ""


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        made = str(field.get_default(call_default_factory=True, validated_data={}))
        return f"`{made.replace(str(Path.home()), '~')}`"
    value = field.default
    if value is None or value == "":
        return ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = [
        text.format(f"{limit:,}" if isinstance(limit, int) else limit)
        for name, text in _LIMITS
        for entry in field.metadata
        if (limit := getattr(entry, name, None)) is not None
    ]
    if annotation is SecretStr or SecretStr in get_args(annotation):
        limits.append("secret, masked in every output")
    return ", ".join(limits)


def _metrics() -> Iterable[tuple[str, ...]]:
    metrics = Metrics()
    labels = {
        instrument._name: instrument._labelnames
        for instrument in vars(metrics).values()
        if hasattr(instrument, "_labelnames")
    }
    for family in metrics.registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        named = ", ".join(f"`{label}`" for label in labels.get(family.name, ()))
        yield f"`{family.name}{suffix}`", family.type, named, family.documentation


def _alerts() -> Iterable[tuple[str, ...]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            words = rule["annotations"]
            yield rule["alert"], rule["labels"]["severity"], words["summary"], words["impact"], words["action"]


def _exit_codes() -> list[tuple[str, str]]:
    return re.findall(r"(\d+) ([^·]+?)\s*(?:·|$)", " ".join(EXIT_CODES.split()))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("<", "\\<") for cell in row] for row in rows)]
    return "".join(
        f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in line)} |\n" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
