// The person's hand: held keys, buttons and gamepad sticks become one motion, sent again and again while it is held.
// Axes of a motion: forward, left, up, and the turns about these; each -1 to 1.

const SEND_MS = 40;
const DEAD_ZONE = 0.15;
const KEYS = {
  KeyW: "0+", KeyS: "0-", KeyA: "1+", KeyD: "1-", KeyR: "2+", KeyF: "2-",
  ArrowLeft: "3-", ArrowRight: "3+", ArrowUp: "4+", ArrowDown: "4-", KeyQ: "5+", KeyE: "5-",
};

// Numbers of the standard layout: Y, X, LB, Start, Back.
const PAD_KEYS = { 3: "success", 2: "failure", 4: "again", 9: "pause", 8: "stop" };

export class Hand {
  // send(message) takes what the hand does; turn(motion) maps it to the operator's axes; press(key) the gamepad's keys.
  constructor({ send, turn, press, grip, show }) {
    Object.assign(this, { send, turn, press, grip, show });
    this.held = new Map();
    this.speed = 0.6;
    this.fine = false;
    this.driving = false;
    this.enabled = false;
    this.padButtons = [];
    setInterval(() => this.tick(), SEND_MS);
    window.addEventListener("blur", () => this.drop());
    document.addEventListener("visibilitychange", () => document.hidden && this.drop());
    window.addEventListener("pagehide", () => this.drop());
  }

  down(source, axis) { this.held.set(source, axis); this.tick(); }
  up(source) { if (this.held.delete(source)) this.tick(); }
  drop() { this.held.clear(); this.fine = false; this.tick(true); }

  keydown(event) {
    this.fine = event.shiftKey;
    const axis = KEYS[event.code];
    if (!axis) return false;
    if (!event.repeat) this.down(event.code, axis);
    return true;
  }
  keyup(event) {
    this.fine = event.shiftKey;
    this.up(event.code);
  }

  motion() {
    const motion = [0, 0, 0, 0, 0, 0];
    for (const axis of this.held.values()) motion[+axis[0]] += axis[1] === "+" ? 1 : -1;
    const scale = this.speed * (this.fine ? 0.35 : 1);
    const stick = this.readPad();
    return motion.map((value, i) => Math.max(-1, Math.min(1, value * scale + stick[i] * this.speed)));
  }

  readPad() {
    const motion = [0, 0, 0, 0, 0, 0];
    const pad = [...(navigator.getGamepads?.() ?? [])].find(p => p && p.connected && p.axes.length >= 4);
    this.show(pad ? "gamepad" : "");
    if (!pad || !document.hasFocus()) { this.padButtons = []; return motion; }
    const bend = v => Math.abs(v) < DEAD_ZONE ? 0 : Math.sign(v) * (Math.abs(v) - DEAD_ZONE) / (1 - DEAD_ZONE);
    const [lx, ly, rx, ry] = pad.axes.map(bend);
    const on = pad.buttons.map(b => b.pressed);
    motion[0] = -ly; motion[1] = -lx; motion[2] = -ry; motion[5] = -rx;
    motion[3] = (on[15] ? 1 : 0) - (on[14] ? 1 : 0);
    motion[4] = (on[12] ? 1 : 0) - (on[13] ? 1 : 0);
    const fresh = i => on[i] && !this.padButtons[i];
    if (this.enabled) {
      // The same buttons as those of a pad at the robot's machine (teleop/gamepad.py).
      if (fresh(0)) this.grip(true);
      if (fresh(1)) this.grip(false);
      for (const [button, key] of Object.entries(PAD_KEYS)) if (fresh(button)) this.press(key);
    }
    this.padButtons = on;
    return motion;
  }

  tick(lost = false) {
    const motion = this.motion();
    const moves = !lost && this.enabled && motion.some(v => v !== 0);
    if (moves) this.send({ type: "drive", motion: this.turn(motion).map(v => +v.toFixed(3)) });
    // Who only watches has nothing to let go of.
    else if (this.driving || (lost && this.enabled)) this.send({ type: "release" });
    this.driving = moves;
    const active = new Set(this.held.values());
    for (const button of document.querySelectorAll("[data-jog]")) button.classList.toggle("on", this.enabled && active.has(button.dataset.jog));
  }
}

// Words by buttons and keys: what is held together, or tapped in quick succession, is one command.
const SAY = { KeyI: "0+", KeyK: "0-", KeyJ: "1+", KeyL: "1-", KeyU: "2+", KeyO: "2-", KeyM: "none" };
const COMBINE_MS = 700;

export class Talk {
  constructor({ send }) {
    this.send = send;
    this.signs = [0, 0, 0];
    this.spoken = 0;
    this.held = new Map();
    this.keep = false;
    setInterval(() => this.held.size && this.say(), 200);
    window.addEventListener("blur", () => this.drop());
  }
  keydown(event) {
    const axis = SAY[event.code];
    if (!axis) return false;
    if (!event.repeat) this.down(event.code, axis);
    return true;
  }
  keyup(event) { this.up(event.code); }
  down(source, axis) {
    if (axis === "none") { this.clear(); return; }
    // A tap soon after another adds to it; the opposite of it replaces it.
    if (!this.held.size && performance.now() - this.spoken > COMBINE_MS) this.signs = [0, 0, 0];
    this.held.set(source, axis);
    this.signs[+axis[0]] = axis[1] === "+" ? 1 : -1;
    this.say();
  }
  up(source) { this.held.delete(source); }
  drop() { this.held.clear(); }
  say() {
    this.spoken = performance.now();
    this.send({ type: "say", signs: this.signs, keep: this.keep });
  }
  clear() {
    this.held.clear();
    this.signs = [0, 0, 0];
    this.send({ type: "say", signs: this.signs, keep: false });
  }
}
