"""The pages are whole: links lead somewhere, the configuration page is that of the source, commands exist."""

import re
import runpy
from pathlib import Path

import pytest

from hildaft.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for command in re.findall(r"^hildaft ([a-z-]+)", text, flags=re.MULTILINE):
        assert command in COMMANDS, command


def test_the_configuration_page_is_that_of_the_source():
    compose = runpy.run_path(str(ROOT / "scripts" / "configuration_reference.py"))["compose"]
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == compose()


def test_every_page_of_the_navigation_exists():
    named = re.findall(r'"([\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert "gymnasium.md" in named
    assert all((ROOT / "docs" / name).exists() for name in named)
