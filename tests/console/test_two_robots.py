"""Two arms of the bench in one console, in a real browser: each is seen, one is driven, the other does not move."""

import re
import signal
import subprocess
import sys
import time

import pytest

WORDS = (
    *("-m", "hildaft.cli", "console", "--robots", "A", "B"),
    *("--tasks", "pick", "--serving.port", "0"),
)

FLUENT = """() => {
  const rates = document.getElementById("rates").innerText.match(/\\d+\\.\\d+/g) ?? [];
  return rates.length > 0 && Math.min(...rates) > 5;
}"""
"""Whether the pictures of both cameras come at more than 5 per second."""

DRAWN = "() => ['head', 'wrist'].map(id => +(document.getElementById(id).dataset.drawn ?? 0))"
NEWER = """least => ['head', 'wrist'].every(
  (id, i) => +document.getElementById(id).dataset.drawn >= least[i])"""


@pytest.fixture
def address(tmp_path):
    """Of the console of two simulated robots, as a user starts it; nobody has opened it yet."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *WORDS], stdout=out, stderr=out)
    try:
        end = time.monotonic() + 240
        while not (found := re.search(r"console: (http\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def look_at(page, robot):
    page.click(f"#robots label:has-text('robot {robot}')")
    page.wait_for_function(
        "robot => document.getElementById('mode').textContent.startsWith(`robot ${robot} `)",
        arg=robot,
    )


def pictures(page):
    """What both cameras show, once two looks some pictures apart are alike: a robot that stands."""
    read = "() => ['head', 'wrist'].map(id => document.getElementById(id).toDataURL())"
    end = time.monotonic() + 60
    before = page.evaluate(read)
    while True:
        # A busy machine may draw nothing for a while: only newer pictures show that the robot stands.
        page.wait_for_function(NEWER, arg=[drawn + 3 for drawn in page.evaluate(DRAWN)])
        seen = page.evaluate(read)
        if seen == before:
            return seen
        assert time.monotonic() < end, "the robot does not stand"
        before = seen


def step_of(page):
    return int(page.inner_text("#step").split()[-1])


def drive(page, key, steps):
    """Holds a key until the robot has taken so many steps."""
    first = step_of(page)
    page.keyboard.down(key)
    page.wait_for_function(
        "least => +document.getElementById('step').textContent.split(' ').at(-1) >= least",
        arg=first + steps,
    )
    page.keyboard.up(key)
    page.wait_for_selector("body[data-control=hold]")


def showing(page, robot):
    return page.get_attribute(f"#robots label:has-text('robot {robot}')", "data-control")


def test_each_robot_is_seen_and_driven_alone(address, open_page):
    first = open_page(address, size=(1440, 900))
    first.wait_for_function("() => document.querySelectorAll('#robots input').length === 2")
    second = open_page(address, seated=False)
    second.wait_for_selector("#seat:disabled")
    # The other robot's seat is free: whoever looks at it has it, and the first one keeps theirs.
    look_at(second, "B")
    second.wait_for_selector("body.seated")
    assert first.evaluate("() => document.body.classList.contains('seated')")
    for page in (first, second):
        # A page just opened counts pictures from when it saw none.
        page.wait_for_function(FLUENT)
    a, b = pictures(first), pictures(second)
    assert not set(a) & set(b)

    drive(first, "w", 5)
    assert pictures(first) != a
    assert step_of(second) == 0
    assert pictures(second) == b

    a, steps = pictures(first), step_of(first)
    second.keyboard.down("a")
    first.wait_for_selector("#robots label:has-text('robot B')[data-control=human]")
    assert showing(first, "A") == "hold"
    second.wait_for_function(
        "() => +document.getElementById('step').textContent.split(' ').at(-1) >= 2"
    )
    second.keyboard.up("a")
    second.wait_for_selector("body[data-control=hold]")
    assert pictures(second) != b
    assert (step_of(first), pictures(first)) == (steps, a)

    # One person, both robots in turn: looking away lets go of the first one's seat.
    b = pictures(second)
    look_at(first, "B")
    first.wait_for_selector("#seat:disabled")
    first.keyboard.down("s")
    first.keyboard.up("s")
    assert pictures(first) == b
    second.close()
    first.click("#seat:enabled")
    first.wait_for_selector("body.seated")
    drive(first, "s", 3)
    assert pictures(first) != b
    look_at(first, "A")
    first.wait_for_selector("body.seated")
    assert pictures(first) == a
