// Push-to-talk: the microphone is open while the button is held, and not a moment longer.

export class Microphone {
  // send(message) and sendSound(buffer) reach the robot's computer; show("listening" | "thinking" | "", trouble).
  constructor({ send, sendSound, show }) {
    Object.assign(this, { send, sendSound, show });
    this.held = false;
    // The button may go up and down again while the browser still asks: only the newest press may record.
    this.press = 0;
    this.recording = 0;
    window.addEventListener("blur", () => this.up());
  }

  async down() {
    if (this.held) return;
    this.held = true;
    const press = ++this.press;
    if (!navigator.mediaDevices) {
      this.held = false;
      this.show("", "The browser gives the microphone to pages on this machine or over TLS only. Type the words.");
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } });
      await this.record(stream, press);
    } catch (error) {
      if (press !== this.press) return;
      this.held = false;
      this.show("", `No microphone: ${error.message}. Type the words.`);
    }
  }

  async record(stream, press) {
    let context;
    const close = () => { stream.getTracks().forEach(track => track.stop()); context?.close(); };
    try {
      context = new AudioContext();
      await context.audioWorklet.addModule("/static/recorder.js");
    } catch (error) { close(); throw error; }
    if (press !== this.press) { close(); return; }
    // The person let go while the browser was still asking.
    if (!this.held) { close(); this.show("", "Hold the button while you speak."); return; }
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    this.recording = press;
    this.send({ type: "listen", on: true });
    this.show("listening");
    node.port.onmessage = ({ data }) => {
      // The end of a recording may come after the next one has begun.
      const isNewest = this.recording === press;
      if (data !== "end") { if (isNewest) this.sendSound(data); return; }
      close();
      if (!isNewest) return;
      this.send({ type: "listen", on: false });
      this.show("thinking");
    };
    context.createMediaStreamSource(stream).connect(node);
    this.end = () => node.port.postMessage("end");
  }

  up() {
    if (!this.held) return;
    this.held = false;
    this.end?.();
    this.end = null;
  }
}
