"use strict";
// The page: one WebSocket brings pictures with their boxes (binary) and the numbers of each second (text). Boxes are
// drawn here, so the filters act at once and every viewer has filters of its own.

const $ = id => document.getElementById(id);
const HISTORY = 180, RETRY_MS = 1000, SILENT_MS = 3000;
const view = { classes: [], hidden: new Set(), score: 0.3, labels: true, trails: true, frozen: false, packet: null, bitmap: null,
  samples: [], shown: [], last: 0, state: "connecting", places: [] };
let charts = [];

// -- the connection ----------------------------------------------------------------------------------------------------
function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = message => typeof message.data === "string" ? text(JSON.parse(message.data)) : picture(socket, message.data);
  socket.onclose = () => { setState("disconnected"); setTimeout(connect, RETRY_MS); };
}

function text(message) {
  if (message.type === "hello") hello(message);
  else status(message);
}

async function picture(socket, data) {
  const size = new DataView(data).getUint32(0);
  const packet = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  try {
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, 4 + size)], { type: "image/jpeg" }));
    if (!view.frozen) {
      if (view.bitmap) view.bitmap.close();
      view.bitmap = bitmap;
      view.packet = packet;
      draw();
      counts(packet.counts);
      count(packet);
    } else {
      bitmap.close();
    }
  } finally {
    if (socket.readyState === WebSocket.OPEN) socket.send(String(packet.number)); // confirms: drawn
  }
}

function count(packet) {
  const now = performance.now();
  view.last = now;
  view.shown.push(now);
  while (view.shown[0] < now - 5000) view.shown.shift();
  const span = now - view.shown[0];
  $("now-fps").textContent = span > 500 ? ((view.shown.length - 1) * 1000 / span).toFixed(1) : "–";
  $("now-latency").textContent = packet.latency.toFixed(0);
  $("now-age").textContent = packet.age.toFixed(0);
}

// -- the picture -------------------------------------------------------------------------------------------------------
function visible() {
  return view.packet ? view.packet.boxes.filter(b => b[4] >= view.score && !view.hidden.has(b[5])) : [];
}

function draw() {
  if (!view.packet) return;
  const { packet, bitmap } = view, canvas = $("picture"), boxes = visible();
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const pen = canvas.getContext("2d"), scale = bitmap.width / packet.width;
  // lines and letters have a size on the screen, whatever the picture's
  const dot = bitmap.width / Math.max(canvas.clientWidth, 1);
  pen.drawImage(bitmap, 0, 0);
  pen.lineJoin = pen.lineCap = "round";
  places(pen, scale, dot, packet.counts || []);
  if (view.trails) boxes.filter(b => b[6] > 0).forEach(b => trail(pen, packet.trails[b[6]] || [], colour(b[5]), scale, dot));
  [...boxes].reverse().forEach(b => box(pen, b, scale, dot));
  told(canvas, boxes);
}

function box(pen, [x1, y1, x2, y2, score, cls, track], scale, dot) {
  const [x, y, w, h] = [x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale];
  pen.strokeStyle = "rgb(0 0 0 / 65%)"; pen.lineWidth = 4.5 * dot; pen.strokeRect(x, y, w, h);
  pen.strokeStyle = colour(cls); pen.lineWidth = 2.2 * dot; pen.strokeRect(x, y, w, h);
  if (view.labels) tag(pen, `${track > 0 ? `#${track} ` : ""}${view.classes[cls].name} ${Math.round(score * 100)}%`, x, y, colour(cls), dot);
}

function tag(pen, words, x, y, fill, dot) {
  pen.font = `600 ${13 * dot}px system-ui, sans-serif`;
  const wide = pen.measureText(words).width + 10 * dot, high = 19 * dot;
  const left = Math.max(0, Math.min(x - dot, pen.canvas.width - wide)), top = Math.max(0, y - high);
  pen.fillStyle = fill; pen.fillRect(left, top, wide, high);
  pen.fillStyle = luminance(fill) > 0.42 ? "#10191e" : "#fff";
  pen.textBaseline = "middle";
  pen.fillText(words, left + 5 * dot, top + high / 2 + dot);
}

function trail(pen, points, stroke, scale, dot) {
  pen.lineWidth = 2.4 * dot;
  pen.strokeStyle = stroke;
  points.forEach(([x, y], i) => {
    if (!i) return;
    pen.globalAlpha = 0.15 + 0.75 * i / points.length;
    pen.beginPath(); pen.moveTo(points[i - 1][0] * scale, points[i - 1][1] * scale); pen.lineTo(x * scale, y * scale); pen.stroke();
  });
  pen.globalAlpha = 1;
}

// count lines and zones; given in pixels, or as fractions of the picture
function places(pen, scale, dot, list) {
  list.forEach(place => {
    const part = Math.max(...place.points.flat()) <= 1;
    const points = place.points.map(([x, y]) => part ? [x * pen.canvas.width, y * pen.canvas.height] : [x * scale, y * scale]);
    pen.beginPath();
    points.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
    if (place.kind === "zone") { pen.closePath(); pen.fillStyle = "rgb(255 255 255 / 14%)"; pen.fill(); }
    pen.strokeStyle = "rgb(0 0 0 / 55%)"; pen.lineWidth = 5 * dot; pen.stroke();
    pen.strokeStyle = "#fff"; pen.lineWidth = 2.4 * dot; pen.setLineDash([9 * dot, 7 * dot]); pen.stroke(); pen.setLineDash([]);
    tag(pen, place.name, points[0][0] + 6 * dot, points[0][1], "#ffffff", dot);
  });
}

function told(canvas, boxes) {
  const sums = view.classes.map((c, i) => [c.name, boxes.filter(b => b[5] === i).length]);
  $("drawn").textContent = canvas.dataset.boxes = boxes.length;
  const words = sums.filter(([, n]) => n).map(([name, n]) => `${n} ${name}`).join(", ");
  canvas.setAttribute("aria-label", `Live picture: ${words || "nothing found"}`);
  view.classes.forEach((c, i) => { c.count.textContent = view.packet.boxes.filter(b => b[5] === i && b[4] >= view.score).length; });
}

const colour = cls => view.classes[cls].colour;
const luminance = hex => [1, 3, 5].reduce((sum, at, i) => sum + parseInt(hex.slice(at, at + 2), 16) / 255 * [0.299, 0.587, 0.114][i], 0);

// -- what the server tells ---------------------------------------------------------------------------------------------
function hello(message) {
  const again = view.classes.length > 0;
  $("about").textContent = [message.model, message.precision, message.runtime, message.board].filter(Boolean).join(" · ");
  document.title = `${message.model} – EdgeKit camera`;
  facts(message);
  view.samples = message.history;
  if (!again) {
    classes(message.classes);
    $("score").min = message.floor;
    setScore(message.score);
  }
  if (!charts.length) charts = CHARTS.map(plan => new Chart($("tiles"), plan));
  charts.forEach(chart => chart.draw(view.samples));
}

function facts(message) {
  const rows = { source: message.source, model: message.model, precision: message.precision, runtime: message.runtime, board: message.board, input: message.input };
  $("run").replaceChildren(...Object.entries(rows).filter(([, v]) => v).concat([["captured", "–"], ["results", "–"], ["dropped", "–"], ["stale", "–"], ["damaged", "–"], ["reopened", "–"]])
    .flatMap(([name, value]) => [Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value, id: "run-" + name })]));
}

function classes(list) {
  view.classes = list;
  list.forEach((c, i) => {
    const chip = document.createElement("button"), dot = document.createElement("i");
    c.count = document.createElement("b");
    c.count.textContent = "0";
    chip.type = "button";
    chip.dataset.class = c.name;
    chip.setAttribute("aria-pressed", "true");
    dot.style.background = c.colour;
    chip.append(dot, c.name, c.count);
    chip.onclick = () => { toggle(i); press(chip, !view.hidden.has(i)); draw(); };
    $("classes").append(chip);
  });
}

function status(message) {
  view.samples.push({ live: message.live, sensors: message.sensors });
  view.samples = view.samples.slice(-HISTORY);
  charts.forEach(chart => chart.draw(view.samples));
  const live = message.live;
  for (const [name, value] of [["captured", live.captured], ["results", live.results], ["dropped", live.dropped], ["stale", live.stale], ["damaged", live.corrupt], ["reopened", live.reconnects]])
    if ($("run-" + name)) $("run-" + name).textContent = value.toLocaleString("en");
  $("now-screen").textContent = message.screen_ms === null ? "–" : message.screen_ms.toFixed(0);
  if (!view.frozen) setState(message.state);
  banner(message);
  events(message.events);
}

function banner(message) {
  const words = message.trouble || (message.state === "lost" ? "The source is gone; it is opened again and again until it is back. The picture is the last one." : "");
  $("banner").textContent = words;
  $("banner").hidden = !words;
}

function events(list) {
  if (!list.length) return;
  $("events").replaceChildren(...[...list].reverse().map(e => {
    const item = Object.assign(document.createElement("li"), { className: e.level });
    item.append(Object.assign(document.createElement("time"), { textContent: clock(e.seconds) }), e.text);
    return item;
  }));
}

function counts(list) {
  $("counts-card").hidden = !list || !list.length;
  if (!list) return;
  const rows = list.flatMap(place => {
    const totals = Object.entries(place.totals);
    const cells = ([name, t]) => place.kind === "line" ? [`${place.name}: ${name}`, t.in, t.out, t.in + t.out] : [`${place.name}: ${name}`, t.inside, "", t.total];
    return totals.length ? totals.map(cells) : [[place.name, 0, place.kind === "line" ? 0 : "", 0]];
  });
  $("counts-head").replaceChildren(row("th", ["", "in", "out", "total"]));
  $("counts").replaceChildren(...rows.map(r => row("td", r)));
}

function row(tag, cells) {
  const line = document.createElement("tr");
  line.append(...cells.map(c => Object.assign(document.createElement(tag), { textContent: c })));
  return line;
}

const clock = seconds => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function setState(state) {
  view.state = state;
  $("state").dataset.state = state;
  $("state").textContent = state;
}

// -- what a person changes ---------------------------------------------------------------------------------------------
function toggle(cls) {
  if (!view.hidden.delete(cls)) view.hidden.add(cls);
}

function press(button, on) { button.setAttribute("aria-pressed", String(on)); }

function setScore(value) {
  view.score = Number(value);
  $("score").value = value;
  $("score-value").textContent = view.score.toFixed(2);
  draw();
}

$("score").addEventListener("input", event => setScore(event.target.value));
for (const name of ["labels", "trails"]) $(name).onclick = () => { press($(name), view[name] = !view[name]); draw(); };
$("freeze").onclick = () => { press($("freeze"), view.frozen = !view.frozen); setState(view.frozen ? "frozen" : "live"); };
window.addEventListener("resize", () => { draw(); charts.forEach(chart => chart.draw(view.samples)); });
setInterval(() => { if (performance.now() - view.last > SILENT_MS) { $("now-fps").textContent = view.last ? "0" : "–"; } }, 1000);
connect();
