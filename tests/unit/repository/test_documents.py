"""The documents: short where they must be, without dead links, and true where they name what the code has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from intentrec_core.domain.spec import DurationWeight, FieldKind, FieldSource, FilterKind, Rule
from intentrec_core.domain.toml import domain_text, parse_domain
from intentrec_core.errors import DomainError
from intentrec_core.plays.table import PLAYS
from stream.ops.metrics import Metrics
from stream.settings import PREFIX, Settings
from stream.wire.codec import decode_intent, decode_recommendation

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
#: Documents that speak of the code as it is now; the others also name what is gone.
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md" and path.parent.name != "decisions"]
MAX_README_LINES = 150
MAX_CELL = 80


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES
    cells = [cell.strip() for line in README.splitlines() if line.startswith("|") for cell in line.split("|")]
    assert [cell for cell in cells if len(cell) > MAX_CELL] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_every_link_leads_somewhere(document: Path) -> None:
    without_code = re.sub(r"`[^`\n]*`", "", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (document.parent / name).resolve() if name else document
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("document", CURRENT, ids=short)
def test_every_setting_and_metric_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX}
    assert set(re.findall(r"INTENTREC_[A-Z_]*", text)) <= settings
    known = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"`(intentrec_[a-z0-9_]+?)(?:_total)?(?:\{\w+\})?`", text):
        assert name in known or name == "intentrec_core" or shutil.which(name), name


@pytest.mark.parametrize("document", CURRENT, ids=short)
def test_every_path_in_code_font_exists(document: Path) -> None:
    packages = r"(?:stream|intentrec_core|index|tests|docs|deploy)"
    for path in re.findall(rf"`({packages}/[\w./-]+)`", document.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_no_figure_is_left_out(document: Path) -> None:
    assert not re.search(r"\b(MEASURED|SETTINGS|TODO|TBD)\b", document.read_text(encoding="utf-8"))


def test_the_messages_in_the_readme_are_messages() -> None:
    recommendation, intent = re.findall(r"```json\n(.*?)```", README, re.S)
    list_of_items = decode_recommendation(recommendation.encode())
    update = decode_intent(intent.encode())
    assert list_of_items.source == update.source
    assert update.primary is not None
    assert update.intents[update.primary.head][update.primary.label] == update.primary.probability
    assert sum(update.weights.values()) == pytest.approx(1, abs=1e-4)


DATA = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_page_on_data_has_every_column_and_choice() -> None:
    for field in PLAYS:
        assert re.search(rf"^\| `{field.name}` \| {'map' if field.name == 'context' else field.type}\b", DATA, re.M), (
            field
        )
    for choice in (*FieldKind, *FieldSource, *FilterKind, *Rule, DurationWeight.LOG):
        assert re.search(rf"`[^`]*\b{choice.value}\b[^`]*`", DATA), choice


@pytest.mark.parametrize("table", ["history", "duration_weight", "first_model", "field", "filter"])
def test_the_page_on_data_has_every_key_of_a_domain_file(table: str) -> None:
    text = re.sub(rf"^(\[+{table}\]+)$", r"\1\nmisspelt = 1", domain_text("video"), count=1, flags=re.M)
    with pytest.raises(DomainError, match="misspelt") as refused:
        parse_domain(text, "video.toml")
    (part,) = re.findall(rf"^\| `\[+{table}\]+`.*?\n\n", DATA + "\n\n", re.M | re.S)
    for key in refused.value.allowed.split(", "):
        assert re.search(rf"`[^`\n]*\b{key}\b", part) or f"`{key}`" in DATA.partition("## The domain file")[2], key


def test_the_five_figures_are_those_of_the_documents_they_link_to() -> None:
    section = README.partition("## Five figures")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .+? \| ([\d.,]+)[^|]*\| \[\w+\]\((docs/\w+\.md)#[\w-]+\) \|$", section, re.M)
    assert len(rows) == 5
    for figure, document in rows:
        assert re.search(rf"\| {re.escape(figure)}[ |]", (ROOT / document).read_text(encoding="utf-8")), figure


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build_reference.py"), "--check"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_picture_loads_nothing() -> None:
    text = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|@import|<image|<script|@font-face", text)
