// The page: one WebSocket to the robot's computer, and the state it sends shown where it belongs.

import { drawChart } from "./charts.js";
import { Hand, Talk } from "./hand.js";
import { Microphone } from "./microphone.js";
import { Pictures } from "./pictures.js";

const VERSION = 1;
const LOST_MS = 1000;
const $ = id => document.getElementById(id);
const pictures = new Pictures({ head: $("head"), wrist: $("wrist") });
const names = ["forward", "left", "up", "roll", "tip", "turn"];
let socket, state = {}, heardAt = 0, preview = null, spoken = "", review = null, charts = null, voice = "";

// The link.

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    heardAt = performance.now();
    if (typeof data === "string") receive(JSON.parse(data));
    else takePicture(data);
  };
  socket.onclose = () => { lose(); setTimeout(connect, 500); };
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function takePicture(data) {
  const view = new DataView(data);
  if (view.getUint8(0) !== VERSION) return;
  const length = view.getUint8(1);
  const camera = new TextDecoder().decode(new Uint8Array(data, 6, length));
  if (!review) pictures.take(camera, new Blob([new Uint8Array(data, 6 + length)], { type: "image/jpeg" }));
}

function receive(message) {
  const known = { hello: greet, state: show, charts: showCharts, heard: showHeard, refused: m => toast(m.reason), echo: showEcho };
  // The next pictures come once this is seen: a slow link carries the newest, not all.
  if (message.type === "state") send({ type: "seen", number: message.number });
  known[message.type]?.(message);
}

function greet({ version, robots, voice: missing }) {
  voice = missing;
  if (version !== VERSION) toast("The server is newer than this page: reload it.");
  $("robots").replaceChildren();
  if (robots.length < 2) return;
  $("robots").className = "robots choice";
  for (const robot of robots) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "robot", value: robot });
    // The arrow keys are the hand's: the next one must not choose another robot.
    input.onchange = () => { hand.drop(); input.blur(); send({ type: "select", robot }); };
    const text = document.createElement("span");
    text.innerHTML = `<i></i>robot ${escape(robot)} <em></em>`;
    label.append(input, text);
    $("robots").append(label);
  }
}

function lose() {
  hand.enabled = false;
  document.body.dataset.control = "lost";
  document.body.classList.remove("seated");
  $("control").textContent = "NO LINK";
  $("hint").textContent = "The robot has let go of your hand. Reconnecting.";
  $("link").textContent = "-";
}

function showEcho({ stamp }) {
  $("link").textContent = `link ${Math.max(0, performance.now() - stamp).toFixed(0)} ms`;
}

// The state.

const TITLES = { policy: "POLICY", human: "YOU DRIVE", helper: "SIMULATED OPERATOR", hold: "HOLD", replay: "REPLAY" };

function hint() {
  if (state.control === "replay") return "Look at the recording, then keep or discard it.";
  if (!state.in_control) return state.taken ? "Somebody else is in control. You are watching." : "Nobody is in control. Take control to drive or talk.";
  if (state.asks) return "Is the task done? <kbd>Y</kbd> yes, <kbd>N</kbd> not yet. No answer is a yes.";
  if (state.aside && state.control === "helper") return "The simulated operator demonstrates. Watch: after the demonstrations and the warm-up it is your turn.";
  if (state.aside && state.control === "policy") return "The policy is evaluated: nobody helps it. Your turn comes afterwards.";
  if (state.aside && charts?.stage === "warm-up") return "The networks learn from the demonstrations. The robot stands still; there is nothing to do until it moves.";
  if (state.aside) return "The robot stands still between two episodes.";
  if (state.paused) return "Paused: the robot stands still. <kbd>P</kbd> goes on.";
  if (state.device?.fault && state.device.hand === "held") return `${escape(state.device.fault)}. The robot is held until it is back and at rest. Drive here, or go on without it with <kbd>H</kbd>.`;
  if (state.control === "human") return `The robot follows ${state.device?.hand === "human" ? escape(state.device.name) : "your hand"}. Let go and it stops.`;
  if (state.control === "helper") return "The simulated operator corrects. Drive, and it steps back.";
  if (state.mode !== "policy") return (state.device ? `Push the ${escape(state.device.name)}, or hold ` : "Hold ") + "<kbd>W</kbd><kbd>A</kbd><kbd>S</kbd><kbd>D</kbd> to move, <kbd>R</kbd><kbd>F</kbd> for up and down, <kbd>G</kbd> for the jaws. Time stands still while you let go.";
  if (state.control === "hold") return "The robot stands still. Drive, or hand back with <kbd>H</kbd>.";
  return "The policy moves. Hold <kbd>W</kbd><kbd>A</kbd><kbd>S</kbd><kbd>D</kbd> <kbd>R</kbd><kbd>F</kbd> to correct it, or tell it with <kbd>I</kbd><kbd>J</kbd><kbd>K</kbd><kbd>L</kbd> <kbd>U</kbd><kbd>O</kbd>.";
}

function show(next) {
  state = next;
  document.body.dataset.control = state.control;
  document.body.classList.toggle("seated", state.in_control);
  hand.enabled = state.in_control;
  const warms = state.aside && state.control === "hold" && charts?.stage === "warm-up";
  $("control").textContent = state.asks ? "DONE?" : warms ? "WARM-UP" : state.control === "human" && !state.in_control ? "A PERSON DRIVES" : TITLES[state.control];
  setHtml("hint", hint());
  $("count").textContent = state.note || (state.episode ? `episode ${state.episode}` : "");
  $("mode").textContent = `robot ${state.robot} · ${state.mode}`;
  $("instruction").textContent = state.instruction || "waiting for the first episode";
  $("seat").textContent = state.in_control ? "Leave the seat" : state.taken ? "Seat taken" : "Take control";
  $("seat").className = state.in_control ? "mine" : "";
  $("seat").disabled = !state.in_control && state.taken;
  $("pause").firstChild.textContent = state.paused ? "Go on" : "Pause";
  showRobots();
  $("step").textContent = `step ${state.step}`;
  $("jaw").value = state.jaw;
  $("jawtext").textContent = state.closed ? "closed" : "open";
  $("griptext").textContent = state.closed ? "open" : "close";
  $("device").hidden = !state.device;
  $("device").textContent = state.device ? state.device.name : "";
  $("device").className = `pad-state ${state.device?.fault ? "lost" : "on"}`;
  $("frame").textContent = `forward ${state.axes[0]}, left ${state.axes[1]}, up ${state.axes[2]} of the robot`;
  $("helperrow").hidden = state.helper === null;
  $("helper").checked = !!state.helper;
  showAxes();
  showTalk();
  showReview();
}

// Every robot's own state stands in the switch: one that is not looked at may be asking for somebody.
function showRobots() {
  for (const input of document.querySelectorAll("#robots input")) {
    const showing = state.robots?.[input.value] ?? "hold";
    input.checked = input.value === state.robot;
    input.parentElement.dataset.control = showing;
    input.parentElement.querySelector("em").textContent = (showing === "asks" ? "DONE?" : showing === "human" && !(input.checked && state.in_control) ? "A PERSON DRIVES" : TITLES[showing]).toLowerCase();
  }
}

function escape(text) { return Object.assign(document.createElement("i"), { textContent: text }).innerHTML; }

function setHtml(id, html) { if ($(id).innerHTML !== html) $(id).innerHTML = html; }

function operatorAxes(values) {
  const axes = state.axes.map(axis => ["xyz".indexOf(axis[1]), axis[0] === "+" ? 1 : -1]);
  return [...axes.map(([i, s]) => s * (values[i] ?? 0)), ...axes.map(([i, s]) => s * (values[3 + i] ?? 0))];
}

function showAxes() {
  const values = operatorAxes(state.executed);
  const rows = $("axes");
  if (!rows.children.length) rows.innerHTML = names.map(n => `<div class="axis"><span>${n}</span><i><u></u></i><b></b></div>`).join("");
  values.forEach((value, i) => {
    rows.children[i].querySelector("u").style.transform = `scaleX(${value})`;
    rows.children[i].querySelector("b").textContent = value.toFixed(2);
  });
}

function showTalk() {
  for (const button of document.querySelectorAll("[data-say]")) {
    const axis = button.dataset.say;
    if (axis !== "none") button.classList.toggle("on", state.said[+axis[0]] === (axis[1] === "+" ? 1 : -1));
  }
  pictures.mark({ guides: state.guides, axes: state.axes, command: state.command, preview: preview?.command, label: preview?.words ?? state.words, replay: !!review });
}

// Charts.

function showCharts(message) {
  charts = message;
  const curve = name => message.curves[name] ?? [];
  const percent = name => curve(name).length ? `${Math.round(100 * curve(name).at(-1)[1])} %` : "-";
  for (const name of ["success", "intervention", "obedience"]) $(`v-${name}`).textContent = percent(name);
  const teal = "#1f7a6d", amber = "#b3660c", violet = "#5b4a9c";
  const empty = "after the first episodes";
  drawChart($("c-success"), [{ points: curve("success"), colour: teal }], { share: true, unit: "episodes", empty });
  drawChart($("c-intervention"), [{ points: curve("intervention"), colour: amber }], { share: true, unit: "episodes", empty });
  drawChart($("c-obedience"), [{ points: curve("obedience"), colour: teal }], { share: true, unit: "min", empty: "measured at each evaluation" });
  const losses = [["critic", teal], ["cloning", amber], ["refinement", violet]].filter(([n]) => curve(`loss/${n}`).length);
  setHtml("v-loss", losses.map(([n, c]) => `<span class="key key-${n}">${n}</span>`).join(""));
  losses.forEach(([n, c]) => document.querySelector(`.key-${n}`).style.setProperty("--c", c));
  drawChart($("c-loss"), losses.map(([n, colour]) => ({ points: curve(`loss/${n}`), colour })), { log: true, unit: "min", empty: "no learner here" });
  $("stage").textContent = message.stage || "no run";
  $("progress").hidden = !message.total;
  $("progress").max = message.total || 1;
  $("progress").value = Math.min(message.completed, message.total);
  $("episodes").textContent = message.episodes;
  $("successes").textContent = message.successes;
  $("time").dataset.at = message.seconds - performance.now() / 1000;
}

function showClock() {
  const seconds = Math.max(0, Math.round(+($("time").dataset.at ?? 0) + performance.now() / 1000));
  const two = v => String(v).padStart(2, "0");
  if (charts) $("time").textContent = seconds >= 3600 ? `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}` : `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
  $("rates").textContent = ["head", "wrist"].map(c => `${c} ${pictures.rate(c).toFixed(1)}`).join(", ") + " pictures/s";
}

// Review: the recording is played from the stored pictures.

function showReview() {
  $("review").hidden = !state.review;
  if (!state.review) { review = null; return; }
  if (review) return;
  const { steps, success, seconds, cameras, task, hands } = state.review;
  review = { step: 0, steps, cameras, hands, playing: true, busy: false, robot: state.robot };
  const byHand = hands.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const corrected = state.mode === "policy" ? `, ${byHand} by hand` : "";
  $("reviewtext").textContent = `${task}, ${steps} steps, ${seconds} s, ${success ? "successful" : "not successful"}${corrected}`;
  $("scrub").max = steps;
  $("scrub").value = 0;
  // Where the person corrected the policy, along the slider.
  const share = step => `${100 * step / steps}%`;
  const bands = hands.flatMap(([first, last]) => [`transparent ${share(first)}`, `#e0a35a ${share(first)}`, `#e0a35a ${share(last + 1)}`, `transparent ${share(last + 1)}`]);
  $("scrub").style.background = bands.length ? `linear-gradient(90deg, ${bands.join(", ")})` : "";
  $("reviewstep").hidden = state.mode !== "policy";
}

// Who acted at the step that led to the picture shown, and what the label says.
function showReviewStep() {
  const step = review.step - 1;
  const hand = review.hands.find(([first, last]) => first <= step && step <= last);
  $("reviewstep").className = hand ? "by-hand" : "";
  $("reviewstep").textContent = `step ${review.step}: ${step < 0 ? "start" : hand ? `your hand, labelled “${hand[2]}”` : "the policy"}`;
}

async function playReview() {
  if (!review || !review.playing || review.busy) return;
  const shown = review;
  shown.busy = true;
  try {
    await Promise.all(shown.cameras.map(async camera => {
      const answer = await fetch(`/review/${shown.robot}/${camera}/${shown.step}.jpg`);
      if (answer.ok && review === shown) await pictures.take(camera, await answer.blob());
    }));
  } catch {
    // The console has gone away, which the socket says aloud; the same picture is asked for again.
    return;
  } finally { shown.busy = false; }
  if (review !== shown) return;
  $("scrub").value = shown.step;
  showReviewStep();
  if (shown.step >= shown.steps) shown.playing = false;
  else shown.step += 1;
}
setInterval(playReview, 100);
$("scrub").oninput = event => { if (review) { review.step = +event.target.value; review.playing = true; } };
$("replay").onclick = replay;
function replay() { if (review) Object.assign(review, { step: 0, playing: true }); }

// What the person does.

// "picture": forward is away from you in the head camera's image, whatever the robot's axes are.
function turn(motion) {
  const guide = state.guides?.head;
  if (document.querySelector("[name=follow]:checked").value === "robot" || !guide) return motion;
  const axes = state.axes.slice(0, 2).map(axis => ["xyz".indexOf(axis[1]), axis[0] === "+" ? 1 : -1]);
  const [f, l] = axes.map(([i, s]) => [s * guide[i + 1][0], s * guide[i + 1][1]]);
  const det = f[0] * l[1] - f[1] * l[0];
  if (Math.abs(det) < 1e-9) return motion;
  // Horizontal motion whose image is straight up: solve [f l] (a, b) = (0, -1).
  const [a, b] = [l[0] / det, -f[0] / det];
  const [c, s] = [a, b].map(v => v / Math.hypot(a, b));
  const rotate = (x, y) => [c * x - s * y, s * x + c * y];
  const limit = v => Math.max(-1, Math.min(1, v));
  return [...rotate(motion[0], motion[1]), motion[2], ...rotate(motion[3], motion[4]), motion[5]].map(limit);
}

function press(key) {
  if (state.review) {
    if (key === "success" || key === "failure") judge(key === "success" ? "keep" : "discard");
    else if (key === "again") replay();
    else if (key === "stop") send({ type: "key", key });
    return;
  }
  send({ type: "key", key: key === "pause" && state.paused ? "resume" : key });
}
function judge(verdict) { send({ type: "review", verdict }); }
function grip(closes = !state.closed) { if (state.in_control) send({ type: "grip", closes }); }

const hand = new Hand({
  send, turn, press, grip,
  show: name => { $("gamepad").textContent = name || "no gamepad"; $("gamepad").classList.toggle("on", !!name); },
});
// Words by button answer a question that was asked.
const talk = new Talk({ send: message => { forget(); send(message); } });

const PRESS = { KeyY: "success", KeyN: "failure", KeyB: "again", KeyP: "pause", KeyH: "hand-back", Escape: "stop" };
const SPEEDS = { Digit1: 0, Digit2: 1, Digit3: 2 };

// Whatever may keep the page from hearing that a key goes up ends what is held: while Cmd is down macOS reports no other
// key's going up, and a menu of the system's swallows it.
function letGo() {
  if (hand.held.size) hand.drop();
  talk.drop();
  microphone.up();
}
document.addEventListener("keyup", event => { if (event.key === "Meta") letGo(); });
// A long touch on a button that is held asks for a menu too, and opens none.
document.addEventListener("contextmenu", event => { if (!event.defaultPrevented) letGo(); });

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) { letGo(); return; }
  if (event.code === "Escape") { event.preventDefault(); press("stop"); return; }
  const focus = document.activeElement;
  if (focus === $("text") || (focus?.type === "range" && event.code.startsWith("Arrow"))) return;
  if (event.key === "/") { event.preventDefault(); hand.drop(); $("text").focus(); return; }
  const mine = hand.keydown(event) || talk.keydown(event);
  if (mine) { event.preventDefault(); return; }
  if (event.repeat) return;
  if (event.code === "KeyG") grip();
  else if (event.code === "KeyT") speak();
  else if (event.code === "Enter" && spoken) { event.preventDefault(); confirmSpoken(); }
  else if (PRESS[event.code]) press(PRESS[event.code]);
  else if (event.code in SPEEDS) document.querySelectorAll("[name=speed]")[SPEEDS[event.code]].click();
});
document.addEventListener("keyup", event => { hand.keyup(event); talk.keyup(event); if (event.code === "KeyT") microphone.up(); });

// Buttons are held like keys: by finger, mouse, or Space and Enter when focused.
function holdable(button, down, up) {
  const id = `button ${button.dataset.jog ?? button.dataset.say}`;
  button.type = "button";
  button.addEventListener("pointerdown", event => { button.setPointerCapture?.(event.pointerId); down(id); });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, () => up(id));
  button.addEventListener("keydown", event => { if ((event.code === "Space" || event.code === "Enter") && !event.repeat) { event.preventDefault(); down(id); } });
  for (const name of ["keyup", "blur"]) button.addEventListener(name, () => up(id));
  button.addEventListener("contextmenu", event => event.preventDefault());
}
for (const button of document.querySelectorAll("[data-jog]")) holdable(button, id => hand.down(id, button.dataset.jog), id => hand.up(id));
for (const button of document.querySelectorAll("[data-say]")) holdable(button, id => talk.down(id, button.dataset.say), id => talk.up(id));
for (const button of document.querySelectorAll("[data-key]")) button.onclick = () => press(button.dataset.key);
for (const button of document.querySelectorAll("[data-verdict]")) button.onclick = () => judge(button.dataset.verdict);
document.querySelector("[data-grip]").onclick = () => grip();
$("seat").onclick = () => { hand.drop(); send({ type: "seat", change: state.in_control ? "leave" : "take" }); };
$("keep").onchange = event => { talk.keep = event.target.checked; if (!talk.keep) talk.clear(); };
$("helper").onchange = event => send({ type: "helper", on: event.target.checked });
for (const input of document.querySelectorAll("[name=speed]")) input.onchange = () => { hand.speed = +input.value; input.blur(); };
for (const input of document.querySelectorAll("[name=follow]")) input.onchange = () => input.blur();

// Typed words: their meaning is shown while typing, and acted on when sent.
let typing;
$("text").oninput = event => {
  clearTimeout(typing);
  const text = event.target.value.trim();
  if (!text) { forget(); return; }
  typing = setTimeout(() => send({ type: "text", text, act: false }), 150);
};
$("words").onsubmit = event => {
  event.preventDefault();
  clearTimeout(typing);
  const text = $("text").value.trim();
  if (text) send({ type: "text", text, act: true });
};
function forget() {
  preview = null;
  spoken = "";
  clearTimeout(typing);
  $("heard").className = "";
  setHtml("heard", "Several at once combine. <kbd>/</kbd> starts typing.");
  $("talk").classList.remove("asks");
}
function showHeard({ text, said, words, command, acted, spoken: heard }) {
  if (heard) $("speak").className = "";
  if (heard && !text) { forget(); $("heard").textContent = "Nothing was heard. Hold the button while you speak."; return; }
  const asks = said === null;
  spoken = heard && !asks ? text : "";
  $("talk").classList.toggle("asks", asks);
  $("heard").className = asks ? "ask" : "";
  if (asks) $("heard").textContent = `“${text}”: which way do you mean? Press one of the six, or say it otherwise.`;
  else {
    const meaning = document.createElement("b");
    meaning.textContent = said.some(Boolean) ? words : "nothing to change";
    $("heard").replaceChildren(acted ? "said: " : heard ? `heard “${text}”: ` : "would say: ", meaning);
    if (spoken) $("heard").append(" ", confirmButton());
    else if (!acted) $("heard").append(" (Enter)");
  }
  preview = asks || acted ? null : { command, words };
  if (acted) { $("text").value = ""; $("text").blur(); }
  showTalk();
}

// Spoken words act only when they are confirmed.
function confirmButton() {
  const button = Object.assign(document.createElement("button"), { id: "confirm", type: "button", onclick: confirmSpoken });
  button.innerHTML = "<b>Say it</b><kbd>Enter</kbd>";
  return button;
}
function confirmSpoken() {
  const text = spoken;
  spoken = "";
  if (text) send({ type: "text", text, act: true });
}

const microphone = new Microphone({
  send,
  sendSound: sound => { if (socket?.readyState === WebSocket.OPEN) socket.send(sound); },
  show: (doing, trouble) => {
    $("speak").className = doing;
    if (doing) forget();
    if (doing) $("heard").textContent = doing === "listening" ? "Listening. Let go when you are done." : "One moment.";
    if (trouble) $("heard").textContent = trouble;
  },
});
function speak() {
  if (voice) { $("heard").textContent = voice; return; }
  if (state.in_control) microphone.down();
}
$("speak").addEventListener("pointerdown", event => { $("speak").setPointerCapture?.(event.pointerId); speak(); });
for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur", "keyup"]) $("speak").addEventListener(name, () => microphone.up());
$("speak").addEventListener("keydown", event => { if (event.code === "Space" && !event.repeat) { event.preventDefault(); speak(); } });
$("speak").addEventListener("contextmenu", event => event.preventDefault());

let toasting;
function toast(text) {
  // What was refused may be what was said.
  if ($("speak").className) { $("speak").className = ""; $("heard").textContent = text; }
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toasting);
  toasting = setTimeout(() => { $("toast").hidden = true; }, 4000);
}

setInterval(() => send({ type: "beat", stamp: performance.now() }), 100);
setInterval(() => {
  if (heardAt && performance.now() - heardAt > LOST_MS && document.body.dataset.control !== "lost") { lose(); socket.close(); }
  showClock();
}, 250);
window.addEventListener("resize", () => charts && showCharts(charts));
connect();
