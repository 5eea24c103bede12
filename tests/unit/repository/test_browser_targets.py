"""What shows the console in a browser is not green where nothing was shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import require_chromium

ROOT = Path(__file__).resolve().parents[3]


def test_without_chromium_a_test_is_skipped_and_fails_where_it_is_needed() -> None:
    assert require_chromium("/usr/bin/chromium", is_needed=True) == "/usr/bin/chromium"
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        require_chromium(None, is_needed=False)
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        require_chromium(None, is_needed=True)


@pytest.mark.parametrize("target", ["e2e", "console-picture"])
def test_targets_need_chromium_and_take_no_picture_of_before(target: str) -> None:
    printed = subprocess.run(
        ["make", "-n", target, "--assume-old=.venv/installed"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    shown = next(at for at, line in enumerate(printed) if " tests/browser" in line)
    assert printed[shown].startswith("NEEDS_CHROMIUM=1 ")
    if target == "console-picture":
        assert printed.index("rm -f .intentrec/console/picture.png") < shown
        assert printed.index("cp .intentrec/console/picture.png docs/console.png") > shown


def test_ci_needs_a_browser_and_keeps_its_screenshots() -> None:
    """Files of a folder whose name begins with a dot are kept only where that is said."""
    workflow = (ROOT / ".github/workflows/check.yml").read_text()
    assert "run: make test\n        env:\n          NEEDS_CHROMIUM" in workflow
    kept = workflow.split("actions/upload-artifact")[1]
    assert "path: .intentrec/console\n" in kept
    assert "include-hidden-files: true" in kept
