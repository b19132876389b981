// The cameras, and what is drawn on them: which key moves the gripper where, and the words as an arrow.

const AMBER = "#ffb84d", TEAL = "#3fe0c5";
// Long enough that one picture which comes late does not change the rate shown.
const RATE_MS = 5000;
const AXIS_NAMES = [["W", "forward"], ["A", "left"], ["R", "up"]];

export class Pictures {
  constructor(canvases) {
    this.canvases = canvases;
    this.images = {};
    this.marks = {};
    this.times = {};
  }

  // One JPEG of one camera; decoded off the main thread, drawn when ready.
  async take(camera, blob) {
    const bitmap = await createImageBitmap(blob);
    this.images[camera]?.close();
    this.images[camera] = bitmap;
    this.draw(camera);
    this.count(camera, performance.now());
  }

  // The canvas bears how many pictures were drawn on it: a rate over any time can be told from outside.
  count(camera, now) {
    const canvas = this.canvases[camera];
    if (canvas) canvas.dataset.drawn = 1 + +(canvas.dataset.drawn ?? 0);
    (this.times[camera] ??= []).push(now);
    this.times[camera] = this.times[camera].filter(t => now - t < RATE_MS);
  }

  rate(camera) {
    const times = this.times[camera] ?? [];
    if (times.length < 2 || performance.now() - times.at(-1) > 1500) return 0;
    return 1000 * (times.length - 1) / (times.at(-1) - times[0]);
  }

  // marks: { guides, axes, command, preview, label }; command and preview are signs per base axis.
  mark(marks) {
    const changed = JSON.stringify(marks) !== JSON.stringify(this.marks);
    this.marks = marks;
    if (changed) Object.keys(this.images).forEach(camera => this.draw(camera));
  }

  draw(camera) {
    const canvas = this.canvases[camera];
    const image = this.images[camera];
    if (!canvas || !image) return;
    const context = canvas.getContext("2d");
    const size = canvas.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, size, size);
    const guide = this.marks.guides?.[camera];
    if (!guide || this.marks.replay) return;
    this.drawAxes(context, size, guide);
    const { command, preview } = this.marks;
    if (preview?.some(Boolean)) this.drawArrow(context, size, guide, preview, AMBER, true);
    else if (command?.some(Boolean)) this.drawArrow(context, size, guide, command, TEAL, false);
  }

  origin(size, guide) { return [guide[0][0] * size, guide[0][1] * size]; }

  // Image direction of a motion in base axes, the share of it that lies in the image, and whether it comes nearer.
  direction(guide, signs) {
    const sum = [0, 0, 0];
    const length = Math.hypot(...signs);
    signs.forEach((sign, i) => guide[i + 1].forEach((part, j) => { sum[j] += sign * part; }));
    const full = Math.sqrt([1, 2, 3].reduce((total, i) => total + guide[i][0] ** 2 + guide[i][1] ** 2, 0) / 2);
    const planar = Math.hypot(sum[0], sum[1]);
    return { u: sum[0] / (planar || 1), v: sum[1] / (planar || 1), share: planar / (full * length || 1), nearer: sum[2] > 0 };
  }

  base(axis) {
    const signs = [0, 0, 0];
    signs["xyz".indexOf(axis[1])] = axis[0] === "+" ? 1 : -1;
    return signs;
  }

  drawAxes(context, size, guide) {
    const [x, y] = this.origin(size, guide);
    context.lineWidth = 2;
    context.font = `700 ${size * 0.021}px ui-monospace, Menlo, "DejaVu Sans Mono", monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.marks.axes?.forEach((axis, i) => {
      const { u, v, share } = this.direction(guide, this.base(axis));
      if (share < 0.3) return;
      const reach = size * 0.1 * Math.max(0.5, share);
      context.strokeStyle = "rgb(255 255 255 / .75)";
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + u * reach, y + v * reach);
      context.stroke();
      const [tx, ty] = [x + u * (reach + size * 0.024), y + v * (reach + size * 0.024)];
      context.fillStyle = "rgb(20 26 28 / .72)";
      context.beginPath();
      context.arc(tx, ty, size * 0.02, 0, 7);
      context.fill();
      context.fillStyle = "#fff";
      context.fillText(AXIS_NAMES[i][0], tx, ty + 1);
    });
  }

  drawArrow(context, size, guide, signs, colour, dashed) {
    const { u, v, share, nearer } = this.direction(guide, signs);
    const length = share < 0.3 ? 0 : size * (0.12 + 0.12 * Math.min(1, share));
    // The gripper may be at the edge or out of sight: the whole arrow stays in the picture.
    const inside = (from, step) => {
      const margin = size * 0.08, tip = from + step;
      const moved = from + Math.max(margin, Math.min(size - margin, tip)) - tip;
      return Math.max(margin, Math.min(size - margin, moved));
    };
    const origin = this.origin(size, guide);
    const [x, y] = [inside(origin[0], u * length), inside(origin[1], v * length)];
    context.save();
    context.lineCap = context.lineJoin = "round";
    if (share < 0.3) this.drawDepth(context, size, x, y, colour, nearer);
    else {
      const head = size * 0.05;
      const [tx, ty] = [x + u * length, y + v * length];
      for (const [width, stroke] of [[size * 0.026, "rgb(10 14 16 / .65)"], [size * 0.015, colour]]) {
        context.lineWidth = width;
        context.strokeStyle = stroke;
        context.setLineDash(dashed ? [size * 0.03, size * 0.025] : []);
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(tx, ty);
        context.stroke();
        context.setLineDash([]);
        context.beginPath();
        context.moveTo(tx - (u * 0.9 + v * 0.6) * head, ty - (v * 0.9 - u * 0.6) * head);
        context.lineTo(tx, ty);
        context.lineTo(tx - (u * 0.9 - v * 0.6) * head, ty - (v * 0.9 + u * 0.6) * head);
        context.stroke();
      }
    }
    if (size > 500) this.drawLabel(context, size, dashed ? `${this.marks.label}?` : this.marks.label, colour);
    context.restore();
  }

  // Along the line of sight an arrow has no length: a dot comes nearer, a cross goes away.
  drawDepth(context, size, x, y, colour, nearer) {
    const r = size * 0.05;
    for (const [width, stroke] of [[size * 0.026, "rgb(10 14 16 / .65)"], [size * 0.013, colour]]) {
      context.lineWidth = width;
      context.strokeStyle = context.fillStyle = stroke;
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.stroke();
      context.beginPath();
      if (nearer) { context.arc(x, y, r * 0.3, 0, 7); context.fill(); continue; }
      const d = r * 0.6;
      context.moveTo(x - d, y - d); context.lineTo(x + d, y + d);
      context.moveTo(x + d, y - d); context.lineTo(x - d, y + d);
      context.stroke();
    }
  }

  drawLabel(context, size, text, colour) {
    if (!text) return;
    context.font = `700 ${size * 0.034}px Inter, "Segoe UI", Arial, "DejaVu Sans", sans-serif`;
    context.textAlign = "right";
    context.textBaseline = "alphabetic";
    const width = context.measureText(text).width;
    context.fillStyle = "rgb(16 22 24 / .72)";
    context.beginPath();
    context.roundRect(size * 0.975 - width - size * 0.03, size * 0.91, width + size * 0.035, size * 0.065, size * 0.015);
    context.fill();
    context.fillStyle = colour;
    context.fillText(text, size * 0.962, size * 0.957);
  }
}
