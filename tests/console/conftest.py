"""One headless Chromium for all tests of the page; Debian's, as `scripts/test.sh` installs it."""

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

# A page on a busy machine shows a state late, and the one before it meanwhile.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    assert path, "the page is tested in Chromium: run `bash scripts/setup.sh chromium`"
    with sync_playwright() as playwright:
        # Root in a container has no sandbox of its own; nothing but our own page is opened.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=2 * PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens the console in a browser profile of its own; fails on any error in the page."""
    contexts, errors = [], []
    # A page outlives its server in a test, and a picture of a review its verdict.
    expected = ("Failed to load resource", "WebSocket connection")

    def note(said):
        if said.type == "error" and not said.text.startswith(expected):
            errors.append(said.text)

    def open_at(address, *, script="", size=(1280, 800), seated=True):
        width, height = size
        context = chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", note)
        if script:
            page.add_init_script(script)
        page.goto(address)
        page.wait_for_selector("body.seated" if seated else "body:not([data-control=lost])")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert errors == []
