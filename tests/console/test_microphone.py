"""Push-to-talk on the page: a real microphone path in Chromium, fed from a file, and the real recogniser."""

import shutil
import subprocess

import pytest
from live import DRIFT, TOKEN, live_console
from playwright.sync_api import expect
from test_page import said

from hildaft.console.ears import Ears
from socket_page import Page


@pytest.fixture(scope="module")
def sentence(tmp_path_factory):
    """A recording of somebody who asks for the left, over and over."""
    pytest.importorskip("pocketsphinx", reason="the extra `voice` is not installed")
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng, which speaks the phrase of this test, is not installed")
    path = tmp_path_factory.mktemp("speech") / "left.wav"
    words = ["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), "move to the left"]
    subprocess.run(words, check=True)
    return path


@pytest.fixture
def listening_page(chromium, sentence):
    """Opens the console in a Chromium whose microphone is the recording."""
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sentence}%noloop",
    ]
    browser = chromium.browser_type.launch(executable_path=shutil.which("chromium"), args=arguments)
    yield browser.new_page
    browser.close()


def test_spoken_words_are_shown_and_act_only_when_confirmed(listening_page):
    with live_console() as live:
        page = listening_page()
        page.goto(live.address)
        page.wait_for_selector("body.seated")
        # A machine that drops sound is told again, as a person would.
        for _ in range(4):
            page.keyboard.down("t")
            page.wait_for_selector("#speak.listening")
            page.wait_for_timeout(2200)
            page.keyboard.up("t")
            page.wait_for_selector("#speak:not(.listening, .thinking)", timeout=60_000)
            meant = page.query_selector("#heard > b")
            if meant and meant.inner_text() == "move left":
                break
            print(page.inner_text("#heard"))
        expect(page.locator("#heard > b")).to_have_text("move left")
        expect(page.locator("#heard")).to_contain_text("move to the left")
        # Shown, not done.
        assert {round(float(a[1]), 3) for a in live.wait_steps(3)} == {DRIFT}
        assert live.station.operator.command.is_null
        page.keyboard.press("Enter")
        said(live, (0, 1, 0))
        expect(page.locator("#confirm")).to_have_count(0)


PENDING = """
window.asked = [];
window.streams = [];
window.listens = [];
navigator.mediaDevices.getUserMedia = () => new Promise(give => {
  const number = asked.length;
  asked.push(() => give(streams[number] = new AudioContext().createMediaStreamDestination().stream));
});
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (typeof data !== "string") return;
  const message = JSON.parse(data);
  if (message.type === "listen") listens.push(message.on);
  else send.call(this, data);
};
"""
"""A browser that asks whether the page may listen, and answers when it is told to; nothing reaches the recogniser."""
TRACKS = "() => streams.map(stream => stream.getTracks()[0].readyState).join()"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_presses_while_the_browser_asks_only_the_newest_records(open_page, order):
    with live_console(ears=Ears(missing="")) as live:
        page = open_page(live.address, script=PENDING)
        for press in (page.keyboard.down, page.keyboard.up, page.keyboard.down):
            press("t")
        assert page.evaluate("() => asked.length") == 2
        for answer in order:
            page.evaluate("answer => asked[answer]()", answer)
        page.wait_for_function(f"() => ({TRACKS})() === 'ended,live'")
        page.wait_for_selector("#speak.listening")
        assert page.evaluate("() => listens") == [True]
        page.keyboard.up("t")
        page.wait_for_function(f"() => ({TRACKS})() === 'ended,ended'")
        assert page.evaluate("() => listens") == [True, False]


def test_where_the_recogniser_is_missing_the_page_says_what_to_install(open_page):
    with live_console(ears=Ears(missing="voice: install it: pip install 'hildaft[voice]'")) as live:
        page = open_page(live.address)
        page.keyboard.press("t")
        expect(page.locator("#heard")).to_contain_text("pip install")
        # A page that asks all the same is refused.
        page.keyboard.press("m")
        page.close()
        live.wait(lambda: not live.station.is_taken)
        with Page(live.origin, TOKEN) as other:
            other.send(type="listen", on=True)
            assert "pip install" in other.until("refused")["reason"]


def test_sound_needs_the_button_and_somebody_in_control():
    with live_console() as live, Page(live.origin, TOKEN) as page:
        page.socket.send(b"\0" * 4000)
        assert "push-to-talk" in page.until("refused")["reason"]
        with Page(live.origin, TOKEN) as watcher:
            watcher.send(type="listen", on=True)
            assert "watching" in watcher.until("refused")["reason"]
