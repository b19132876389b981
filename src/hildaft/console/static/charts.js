// Small curves drawn as SVG; a chart without data says what it waits for.

const NS = "http://www.w3.org/2000/svg";

function node(name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const short = v => Math.abs(v) >= 100 || (v !== 0 && Math.abs(v) < 0.01) ? v.toExponential(0) : +v.toPrecision(2) + "";

// lines: [{ points, colour }]; share: y runs from 0 to 100 %; log: y is logarithmic; unit: what x counts.
export function drawChart(svg, lines, { share = false, log = false, unit = "", empty = "" } = {}) {
  const { width: w, height: h } = svg.getBoundingClientRect();
  if (!w) return;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  const all = lines.flatMap(line => line.points).filter(p => !log || p[1] > 0);
  if (!all.length) {
    svg.append(node("text", { x: w / 2, y: h / 2 + 4, "text-anchor": "middle" }, empty));
    return;
  }
  const left = share ? 30 : 34, bottom = 14, top = 5;
  const xs = all.map(p => p[0]), ys = all.map(p => log ? Math.log10(p[1]) : p[1]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = share ? [0, 1] : [Math.min(...ys), Math.max(...ys)];
  if (y1 - y0 < 1e-9) { y0 -= 0.5; y1 += 0.5; }
  const px = x => left + (w - left - 4) * (x - x0) / (x1 - x0 || 1);
  const py = y => top + (h - bottom - top) * (1 - (y - y0) / (y1 - y0));
  for (const y of [y0, (y0 + y1) / 2, y1]) {
    svg.append(node("line", { x1: left, x2: w, y1: py(y), y2: py(y), stroke: "#ece8de" }));
    if (y !== (y0 + y1) / 2) {
      const text = share ? `${100 * y} %` : short(log ? 10 ** y : y);
      svg.append(node("text", { x: left - 5, y: py(y) + 3.5, "text-anchor": "end" }, text));
    }
  }
  if (x1 > x0) svg.append(node("text", { x: left, y: h - 1 }, short(x0)));
  svg.append(node("text", { x: w - 2, y: h - 1, "text-anchor": "end" }, `${short(x1)} ${unit}`));
  for (const { points, colour } of lines) {
    const usable = points.filter(p => !log || p[1] > 0);
    const path = usable.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(log ? Math.log10(y) : y).toFixed(1)}`).join("");
    svg.append(node("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round" }));
    const last = usable.at(-1);
    if (last) svg.append(node("circle", { cx: px(last[0]), cy: py(log ? Math.log10(last[1]) : last[1]), r: 3, fill: colour }));
  }
}
