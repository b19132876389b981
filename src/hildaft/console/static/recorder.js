// In the browser's audio thread: sound at whatever rate it comes becomes 16-bit samples at 16 kHz, each the mean of
// the span it stands for, handed over every eighth of a second.

const HZ = 16000;
const CHUNK = 2000;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / HZ;
    this.left = this.step;
    this.sum = 0;
    this.chunk = new Int16Array(CHUNK);
    this.count = 0;
    this.ended = false;
    this.port.onmessage = () => { this.flush(); this.ended = true; this.port.postMessage("end"); };
  }

  flush() {
    if (!this.count) return;
    const part = this.chunk.slice(0, this.count).buffer;
    this.port.postMessage(part, [part]);
    this.count = 0;
  }

  put(value) {
    this.chunk[this.count++] = Math.round(32767 * Math.max(-1, Math.min(1, value)));
    if (this.count === CHUNK) this.flush();
  }

  process([channels]) {
    if (this.ended) return false;
    for (const value of channels[0] ?? []) {
      let rest = 1;
      while (rest >= this.left) {
        this.put((this.sum + value * this.left) / this.step);
        rest -= this.left;
        this.left = this.step;
        this.sum = 0;
      }
      this.sum += value * rest;
      this.left -= rest;
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
