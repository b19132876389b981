// Push-to-talk: the microphone is open while the button is held, and not a moment longer.

export class Microphone {
  // send(message) and sendSound(buffer) reach the robot's computer; show("listening" | "thinking" | "", trouble).
  constructor({ send, sendSound, show }) {
    Object.assign(this, { send, sendSound, show });
    this.held = false;
    window.addEventListener("blur", () => this.up());
  }

  async down() {
    if (this.held) return;
    this.held = true;
    if (!navigator.mediaDevices) {
      this.held = false;
      this.show("", "The browser gives the microphone to pages on this machine or over TLS only. Type the words.");
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } });
      await this.record(stream);
    } catch (error) {
      this.held = false;
      this.show("", `No microphone: ${error.message}. Type the words.`);
    }
  }

  async record(stream) {
    const context = new AudioContext();
    await context.audioWorklet.addModule("/static/recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    const close = () => { stream.getTracks().forEach(track => track.stop()); context.close(); };
    // The person let go while the browser was still asking.
    if (!this.held) { close(); this.show("", "Hold the button while you speak."); return; }
    this.send({ type: "listen", on: true });
    this.show("listening");
    node.port.onmessage = ({ data }) => {
      if (data !== "end") { this.sendSound(data); return; }
      close();
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
