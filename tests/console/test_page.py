"""The real page in a real browser against a robot that really steps."""

import os
import signal
import time

import numpy as np
import pytest
from live import DRIFT, live_console
from playwright.sync_api import expect

from hildaft.types import NULL_COMMAND, RefinementCommand


@pytest.fixture
def live():
    with live_console() as console:
        yield console


FAST = 2 * DRIFT
"""Nobody but the person's hand moves the robot faster, not even in the hand's first step; at rest nobody moves it."""


def humans(live, steps):
    """So many actions with which the person's hand has moved the robot, from now on."""
    found = []

    def seen():
        found[:] = [a for _, a in live.robot.steps[first:] if np.abs(a[:6]).max() > FAST]
        return len(found) >= steps

    first = len(live.robot.steps)
    live.wait(seen, what="steps of the hand")
    return found


def driven(live, axis, sign, least=FAST):
    """The first action from now on that moves this way so fast; those before may be another key's, or nobody's."""
    found = []

    def seen():
        found[:] = [a for _, a in live.robot.steps[first:] if sign * a[axis] > least]
        return found

    first = len(live.robot.steps)
    live.wait(seen, what=f"motion of the hand along axis {axis}, sign {sign}")
    return found[0]


DRAWN = """() => [performance.now() / 1000, ...["head", "wrist"].map(
  camera => +(document.getElementById(camera).dataset.drawn ?? 0))]"""
AFTER_NEXT = """before => +document.getElementById("head").dataset.drawn > before &&
  +document.getElementById("wrist").dataset.drawn > before"""

RATES_REACH = """least => {
  const rates = document.getElementById("rates").innerText.match(/[0-9.]+/g) ?? [];
  return rates.length > 0 && Math.min(...rates) >= least;
}"""


def drawn_per_s(page, seconds):
    """Pictures drawn per second on either canvas, counted from one picture to another."""

    def at_a_picture():
        _, head, wrist = page.evaluate(DRAWN)
        page.wait_for_function(AFTER_NEXT, arg=max(head, wrist), polling=5)
        return np.array(page.evaluate(DRAWN))

    first = at_a_picture()
    page.wait_for_timeout(1e3 * seconds)
    spent = at_a_picture() - first
    return spent[1:] / spent[0]


def best_stretch(page, wanted, seconds=90.0):
    """The slower stream's rate in the first stretch of 3 s in which it reaches `wanted`, or of the last one tried.

    A machine that does other work too makes single steps and pictures late: one stretch without is waited for.
    """
    end = time.monotonic() + seconds
    while (rate := drawn_per_s(page, 3.0).min().round(1)) < wanted and time.monotonic() < end:
        pass
    return rate


def test_both_cameras_show_ten_pictures_a_second(live, open_page):
    page = open_page(live.address)
    # The loop steps at 10 Hz and no picture is newer than its step: all of them have to arrive.
    assert best_stretch(page, 10.0) >= 10.0
    page.wait_for_function(RATES_REACH, arg=9.5)


def test_a_held_robot_is_shown_more_often_than_it_steps(live, open_page):
    page = open_page(live.address)
    page.keyboard.press("p")
    live.wait(lambda: live.robot.stops > 0)
    held = len(live.robot.steps)
    assert best_stretch(page, 11.0) >= 11.0
    assert len(live.robot.steps) == held


def test_a_held_key_moves_the_robot_its_way_and_only_its_way(live, open_page):
    page = open_page(live.address)
    for key, axis, sign in zip("wsadrf", (0, 0, 1, 1, 2, 2), (1, -1) * 3, strict=True):
        page.keyboard.down(key)
        action = driven(live, axis, sign)
        assert np.delete(action[:6], axis).tolist() == [0.0] * 5
        page.wait_for_selector("body[data-control=human]")
        expect(page.locator("#control")).to_have_text("YOU DRIVE")
        page.keyboard.up(key)
    live.wait(lambda: live.station.operator.control == "policy")
    assert live.wait_steps(4)[-1][0] == np.float32(DRIFT)


MENU = """selector => document.querySelector(selector).dispatchEvent(
  new MouseEvent("contextmenu", { bubbles: true, cancelable: true }))"""
META_UP = "() => document.dispatchEvent(new KeyboardEvent('keyup', { key: 'Meta' }))"


@pytest.mark.parametrize("swallows", ["Meta", "Control", "Alt", "Meta up", "menu"])
def test_keys_whose_going_up_may_never_be_heard_of_are_let_go(live, open_page, swallows):
    page = open_page(live.address)
    page.keyboard.down("i")
    page.keyboard.down("w")
    humans(live, 2)
    live.wait(lambda: not live.station.operator.command.is_null)
    if swallows == "menu":
        page.click("#instruction", button="right")
    elif swallows == "Meta up":
        page.evaluate(META_UP)
    else:
        page.keyboard.down(swallows)
        page.keyboard.up(swallows)
    # The page hears that neither of them is up; a key that repeats is not taken up again.
    page.keyboard.down("w")
    live.wait(lambda: live.station.operator.control == "policy")
    live.wait(lambda: live.station.operator.command.is_null)
    # The step under way may have heard the last of the words.
    assert {round(float(a[0]), 3) for a in live.wait_steps(5)[1:]} == {DRIFT}
    page.keyboard.up("w")
    page.keyboard.down("w")
    humans(live, 2)


def test_a_long_touch_on_a_button_holds_it_though_it_asks_for_a_menu(live, open_page):
    page = open_page(live.address)
    page.focus("[data-jog='0+']")
    page.keyboard.down("Space")
    humans(live, 2)
    page.evaluate(MENU, "[data-jog='0+']")
    # More than those that may have been on their way.
    humans(live, 6)
    page.keyboard.up("Space")
    live.wait(lambda: live.station.operator.control == "policy")


@pytest.mark.parametrize("end", ["release", "blur", "close", "freeze"])
def test_however_the_hand_goes_the_robot_holds(live, open_page, end):
    page = open_page(live.address)
    page.keyboard.down("w")
    humans(live, 3)
    before = len(live.robot.steps)
    if end == "freeze":
        # The tab hangs: nothing is sent and nothing is closed.
        page.evaluate(
            "() => setTimeout(() => { const end = Date.now() + 3000; while (Date.now() < end); }, 0)"
        )
    elif end == "blur":
        page.evaluate("() => window.dispatchEvent(new Event('blur'))")
    elif end == "close":
        page.close()
    else:
        page.keyboard.up("w")
    gone = len(live.robot.steps)
    live.wait(lambda: len(live.robot.steps) >= gone + 8)
    # A busy machine closes a page late, and the robot may stand before the test hears that it is closed.
    actions = np.stack([action for _, action in live.robot.steps[before : gone + 8]])
    still = np.flatnonzero((actions[:, :6] == 0.0).all(axis=1))
    # Silence shows after 250 ms: at most three steps begin before, and the one under way when the page froze.
    assert still.size, actions
    assert still[0] <= gone - before + (4 if end == "freeze" else 1)
    # It stands, gathers speed, and the policy goes on: the hand's motion never comes back.
    after = actions[still[0] :]
    assert (after[:, 0] <= DRIFT).all()


def test_a_killed_tab_is_a_hold_within_300_ms(live, open_page, chromium):
    page = open_page(live.address)
    page.keyboard.down("w")
    humans(live, 3)
    session = chromium.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    tabs = [process["id"] for process in processes if process["type"] == "renderer"]
    assert tabs
    killed = time.time()
    for tab in tabs:
        os.kill(tab, signal.SIGKILL)
    live.wait(lambda: live.station.operator.control != "human")
    live.wait_steps(2)
    moving = [at for at, action in live.robot.steps if action[0] > DRIFT]
    assert max(moving) - killed < 0.3
    live.wait(lambda: not live.station.is_taken)


PAD = """
const buttons = Array.from({ length: 17 }, () => ({ pressed: false }));
window.pad = { connected: true, id: "test pad", axes: [0, 0, 0, 0], buttons };
navigator.getGamepads = () => [window.pad];
"""


def test_a_gamepad_drives_with_a_dead_zone_and_presses_keys(live, open_page):
    page = open_page(live.address, script=PAD)
    page.wait_for_selector("#gamepad.on")
    page.evaluate("() => { pad.axes = [0.1, -0.12, 0.05, 0.1]; }")
    assert {round(float(a[0]), 3) for a in live.wait_steps(4)} == {DRIFT}
    page.evaluate("() => { pad.axes = [0, -1, 0, 0]; }")
    action = driven(live, 0, 1, least=0.5)
    assert action[1] == 0.0
    page.evaluate("() => { pad.axes = [1, 0, 0, 0]; }")
    live.wait(lambda: live.robot.steps[-1][1][1] < -0.5)
    page.evaluate("() => { pad.axes = [0, 0, 0, 0]; }")
    live.wait(lambda: live.station.operator.control == "policy")
    page.evaluate("() => { pad.buttons[0].pressed = true; }")
    live.wait(lambda: live.robot.closed)
    before = len(live.episodes)
    page.evaluate("() => { pad.buttons[0].pressed = false; pad.buttons[1].pressed = true; }")
    live.wait(lambda: not live.robot.closed)
    page.evaluate("() => { pad.buttons[1].pressed = false; pad.buttons[3].pressed = true; }")
    live.wait(lambda: len(live.episodes) > before)
    assert live.episodes[before].success
    # A key between two episodes is of neither.
    live.wait_steps(2)
    page.evaluate("() => { pad.buttons[3].pressed = false; pad.buttons[2].pressed = true; }")
    live.wait(lambda: len(live.episodes) > before + 1)
    assert not live.episodes[before + 1].success
    live.wait_steps(2)
    episode = live.station.feed.frame.episode
    page.evaluate("() => { pad.buttons[2].pressed = false; pad.buttons[4].pressed = true; }")
    live.wait(lambda: live.station.feed.frame.episode > episode)
    page.evaluate("() => { pad.buttons[4].pressed = false; pad.buttons[9].pressed = true; }")
    live.wait(lambda: live.station.operator.paused)
    page.evaluate("() => { pad.buttons[9].pressed = false; pad.buttons[8].pressed = true; }")
    live.wait(live.stop.is_set)


def said(live, signs):
    """Waits until the policy has acted on a command."""
    wanted = 0.5 * np.array(signs, np.float32)
    live.wait(
        lambda: any(np.array_equal(a[:3], wanted) for _, a in live.robot.steps[-12:]),
        what=f"an action of the policy told {signs}",
    )


def test_words_by_key_change_what_the_policy_does(live, open_page):
    page = open_page(live.address)
    told = {"i": (1, 0, 0), "l": (0, -1, 0), "ju": (0, 1, 1), "kol": (-1, -1, -1)}
    for keys, signs in told.items():
        for key in keys:
            page.keyboard.down(key)
        said(live, signs)
        for key in keys:
            page.keyboard.up(key)
        page.keyboard.press("m")
    live.wait(lambda: live.station.operator.command.is_null)
    assert live.station.operator.control == "policy"


NOTE_LIT = """selector => {
  const button = document.querySelector(selector);
  const look = () => { if (button.classList.contains("on")) window.lit = true; };
  new MutationObserver(look).observe(button, { attributes: true });
}"""
"""Words are in force for half a second: a look at the button may come too late."""


def tap_together(page, *says):
    """The page takes together what is tapped within 0.7 s: nothing but the taps themselves lies in between."""
    buttons = [page.locator(f"[data-say='{say}']") for say in says]
    buttons[0].scroll_into_view_if_needed()
    boxes = [button.bounding_box() for button in buttons]
    for box in boxes:
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_words_by_button_combine_when_tapped_together_and_can_be_kept(live, open_page):
    page = open_page(live.address)
    page.evaluate(NOTE_LIT, "[data-say='2+']")
    tap_together(page, "0+", "2+")
    said(live, (1, 0, 1))
    page.wait_for_function("() => window.lit")
    live.wait(lambda: live.station.operator.command.is_null)
    page.check("#keep")
    page.wait_for_timeout(800)
    page.click("[data-say='1+']")
    live.wait_steps(12)
    said(live, (0, 1, 0))
    page.click("[data-say='none']")
    live.wait(lambda: live.station.operator.command.is_null)


def test_typed_words_are_shown_before_they_act_and_asked_about_when_unclear(live, open_page):
    page = open_page(live.address)
    page.keyboard.press("/")
    page.keyboard.type("a bit to the left")
    page.wait_for_selector("#heard b")
    expect(page.locator("#heard b")).to_have_text("move left")
    assert live.station.operator.command.is_null
    page.keyboard.press("Enter")
    said(live, (0, 1, 0))
    # The page hears of it, and leaves the field, at its own time.
    expect(page.locator("#heard")).to_contain_text("said:")
    page.keyboard.press("/")
    page.keyboard.type("purple monkey")
    page.keyboard.press("Enter")
    page.wait_for_selector("#talk.asks")
    expect(page.locator("#heard")).to_contain_text("“purple monkey”: which way")
    live.wait(lambda: live.station.operator.command.is_null)
    page.click("[data-say='1-']")
    said(live, (0, -1, 0))
    expect(page.locator("#talk.asks")).to_have_count(0)


@pytest.mark.parametrize(("key", "reward", "terminated"), [("y", 1.0, True), ("n", 0.0, True)])
def test_the_verdict_ends_the_episode_with_its_reward(live, open_page, key, reward, terminated):
    page = open_page(live.address)
    page.keyboard.press(key)
    live.wait(lambda: live.episodes)
    episode = live.episodes[0]
    assert episode.reward[-1] == reward
    assert episode.reward[:-1].sum() == 0.0
    assert bool(episode.terminated[-1]) is terminated
    assert not episode.truncated.any()
    page.wait_for_function("() => document.getElementById('episodes').textContent === '1'")
    expect(page.locator("#v-success")).to_have_text(f"{100 * reward:.0f} %")


def test_redo_keeps_nothing_and_pause_holds(live, open_page):
    page = open_page(live.address)
    page.keyboard.press("b")
    live.wait(lambda: live.station.feed.frame.episode == 2)
    assert live.episodes == []
    page.keyboard.press("p")
    page.wait_for_selector("body[data-control=hold]")
    live.wait(lambda: live.robot.stops > 0)
    held = len(live.robot.steps)
    first = live.station.feed.frame.number
    live.wait(lambda: live.station.feed.frame.number > first + 5, what="pictures of the held robot")
    assert len(live.robot.steps) == held
    page.keyboard.press("p")
    live.wait_steps(3)
    np.testing.assert_array_equal(live.robot.steps[held][1][:6], 0.0)


def test_escape_stops_even_while_typing(live, open_page):
    page = open_page(live.address)
    page.keyboard.press("/")
    page.keyboard.type("stop it")
    page.keyboard.press("Escape")
    live.wait(live.stop.is_set)
    live.wait(lambda: live.episodes)
    assert live.episodes[0].truncated[-1]
    assert not live.episodes[0].success


def test_a_second_person_watches_and_takes_over_when_the_first_leaves(live, open_page):
    first = open_page(live.address)
    second = open_page(live.address, seated=False)
    second.wait_for_selector("#seat:disabled")
    second.keyboard.down("w")
    second.keyboard.press("y")
    assert {round(float(a[0]), 3) for a in live.wait_steps(4)} == {DRIFT}
    assert live.episodes == []
    expect(second.locator("#hint")).to_contain_text("watching")
    second.keyboard.up("w")
    first.close()
    second.click("#seat:enabled")
    second.wait_for_selector("body.seated")
    second.keyboard.down("w")
    humans(live, 2)


def test_what_the_hand_did_arrives_as_an_intervention_with_its_label(live, open_page):
    page = open_page(live.address)
    page.keyboard.down("a")
    humans(live, 6)
    page.keyboard.up("a")
    live.wait(lambda: live.station.operator.control == "policy")
    live.wait_steps(3)
    page.keyboard.press("y")
    live.wait(lambda: live.episodes)
    episode = live.episodes[0]
    rows = np.flatnonzero(episode.is_intervention)
    assert len(rows) >= 6
    left = RefinementCommand((0, 1, 0)).index
    assert set(episode.refinement[rows].tolist()) == {left}
    np.testing.assert_allclose(episode.policy_action[rows, 0], DRIFT)
    np.testing.assert_array_equal(episode.executed_action[rows], episode.human_action[rows])
    others = np.setdiff1d(np.arange(len(episode)), rows)
    assert set(episode.refinement[others].tolist()) == {NULL_COMMAND.index}


def test_the_keyboard_alone_reaches_and_holds_every_button(live, open_page):
    page = open_page(live.address)
    page.focus("[data-jog='1+']")
    page.keyboard.down("Space")
    action = humans(live, 3)[-1]
    assert action[1] > 0
    page.keyboard.up("Space")
    live.wait(lambda: live.station.operator.control == "policy")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('button, input')].filter(e => !(e.innerText || e.ariaLabel"
        " || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (800, 1180)])
def test_the_page_fits_laptop_and_tablet(live, open_page, size):
    page = open_page(live.address, size=size)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    outside = page.evaluate(
        "() => [...document.querySelectorAll('.controls button, .controls input')].filter(e => e.offsetParent"
        " && e.getBoundingClientRect().right > innerWidth).length"
    )
    assert outside == 0
    stop = page.locator("[data-key=stop]").bounding_box()
    assert stop["height"] >= 40
