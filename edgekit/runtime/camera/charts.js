"use strict";
// Small live charts: one line for each series over the last three minutes, on a canvas, without a library.

const CHARTS = [
  { title: "Latency, capture to result", unit: "ms", digits: 0, series: [["p50", s => s.live.latency_ms.p50], ["p90", s => s.live.latency_ms.p90], ["p99", s => s.live.latency_ms.p99]] },
  { title: "Frames a second", unit: "", digits: 1, series: [["shown", s => s.live.displayed_fps], ["captured", s => s.live.captured_fps]] },
  { title: "Frame age at inference", unit: "ms", digits: 0, series: [["", s => s.live.age_ms]] },
  { title: "Dropped and stale, each second", unit: "", digits: 0, series: [["dropped", rate("dropped")], ["stale", rate("stale")]] },
  { title: "Temperature", unit: "°C", digits: 0, series: [["", sensor("C")]] },
  { title: "Clock", unit: "MHz", digits: 0, series: [["", sensor("MHz")]] },
];

// counts grow; a chart shows what each second added
function rate(name) {
  return (s, before) => before && s.live.seconds > before.live.seconds
    ? Math.max(0, (s.live[name] - before.live[name]) / (s.live.seconds - before.live.seconds)) : null;
}

// the hottest temperature, the highest clock
function sensor(unit) {
  return s => {
    const values = s.sensors.filter(x => x.unit === unit && x.value !== null).map(x => x.value);
    return values.length ? Math.max(...values) : null;
  };
}

class Chart {
  constructor(parent, plan) {
    this.plan = plan;
    this.tile = parent.appendChild(document.createElement("section"));
    this.tile.className = "tile";
    this.tile.appendChild(document.createElement("h3")).textContent = plan.title;
    this.values = this.tile.appendChild(document.createElement("p"));
    this.values.className = plan.series.length > 1 ? "values" : "values single";
    this.canvas = this.tile.appendChild(document.createElement("canvas"));
    this.canvas.setAttribute("role", "img");
  }

  draw(samples) {
    const lines = this.plan.series.map(([, read]) => samples.map((s, i) => read(s, samples[i - 1])));
    const known = lines.flat().filter(v => v !== null);
    this.tile.classList.toggle("off", known.length === 0);
    this.write(lines, known);
    const ratio = window.devicePixelRatio || 1, wide = this.canvas.clientWidth, high = this.canvas.clientHeight;
    this.canvas.width = wide * ratio;
    this.canvas.height = high * ratio;
    if (!known.length) return;
    const top = Math.max(...known) * 1.15 || 1, low = this.plan.unit === "" || this.plan.unit === "ms" ? 0 : Math.min(...known) * 0.95;
    const pen = this.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    pen.scale(ratio, ratio);
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.strokeRect(0.5, 0.5, wide - 1, high - 1);
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    lines.forEach((line, i) => {
      pen.strokeStyle = style.getPropertyValue("--" + "abc"[i]);
      trace(pen, line, v => high - 2 - (v - low) / (top - low || 1) * (high - 4), wide);
    });
  }

  write(lines, known) {
    const { unit, digits, series } = this.plan, texts = [];
    this.values.replaceChildren();
    series.forEach(([name], i) => {
      const last = lines[i].length ? lines[i][lines[i].length - 1] : null;
      const text = last === null ? (known.length ? "–" : "not measured") : last.toFixed(digits);
      const span = this.values.appendChild(document.createElement("span"));
      span.className = "series-" + "abc"[i];
      span.append(name ? name + " " : "", Object.assign(document.createElement("b"), { textContent: text }), last === null || !unit ? "" : " " + unit);
      texts.push(`${name} ${text}`);
    });
    this.canvas.setAttribute("aria-label", `${this.plan.title}: ${texts.join(", ")} ${unit}`);
  }
}

// 180 samples fill the width; the newest is at the right
function trace(pen, line, height, wide) {
  let open = false;
  pen.beginPath();
  line.forEach((value, i) => {
    if (value === null) { open = false; return; }
    const x = wide - (line.length - 1 - i) * wide / Math.max(60, line.length - 1) - 1;
    open ? pen.lineTo(x, height(value)) : pen.moveTo(x, height(value));
    open = true;
  });
  pen.stroke();
}
