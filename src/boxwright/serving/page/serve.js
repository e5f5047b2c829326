"use strict";
// A picture is sent once, with every box above 0.01; the slider chooses among them here.
const COLORS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999"];
const find = (id) => document.getElementById(id);
const canvas = find("canvas"), context = canvas.getContext("2d");
let models = {}, file = null, picture = null, boxes = [];

function tell(text, wrong = false) {
  find("told").textContent = text;
  find("told").className = wrong ? "error" : "";
}

async function ask(path, options = {}) {
  const token = find("token").value;
  const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) find("token").hidden = false;
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

async function load() {
  models = await ask("/models");
  find("model").replaceChildren(...Object.keys(models).map((name) => new Option(name)));
  choose();
}

function choose() {
  const known = Object.values(models[find("model").value].thresholds);
  find("score").value = known.length ? Math.min(...known) : 0.3;
}

async function send(chosen = file) {
  file = chosen;
  tell(`${file.name}: asked`);
  picture = await createImageBitmap(file);
  boxes = [];
  draw();
  const start = performance.now();
  const query = new URLSearchParams({ model: find("model").value, score: 0.01, tiles: find("tiles").checked });
  const found = await ask(`/predict?${query}`, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
  boxes = found.images[0].boxes;
  draw();
  const more = found.images[0].at_limit ? "; the limit of detections was reached" : "";
  tell(`${file.name}: ${Math.round(performance.now() - start)} ms${more}`);
}

function draw() {
  const score = Number(find("score").value);
  find("shown").value = score.toFixed(2);
  if (!picture) return;
  canvas.width = picture.width;
  canvas.height = picture.height;
  context.drawImage(picture, 0, 0);
  const line = Math.max(1.5, picture.width / 500), counts = new Map();
  for (const box of boxes.filter((b) => b.score >= score)) {
    const color = COLORS[box.category_id % COLORS.length];
    counts.set(box.class, (counts.get(box.class) ?? 0) + 1);
    context.save();
    context.translate(box.x + box.w / 2, box.y + box.h / 2);
    context.rotate(box.angle ?? 0);
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect(-box.w / 2, -box.h / 2, box.w, box.h);
    if (box.angle !== undefined) {
      context.beginPath();
      context.moveTo(0, 0);
      context.lineTo(box.w / 2 + 3 * line, 0);
      context.stroke();
    }
    context.restore();
    context.font = `${Math.round(8 * line)}px system-ui`;
    const text = `${box.class} ${box.score.toFixed(2)}`, y = Math.max(8 * line, box.y - line);
    context.strokeStyle = "white";
    context.strokeText(text, box.x, y);
    context.fillStyle = color;
    context.fillText(text, box.x, y);
  }
  find("counts").replaceChildren(...[...counts].sort().map(([name, count]) => {
    const row = document.createElement("tr");
    for (const text of [name, count]) row.insertCell().textContent = text;
    return row;
  }));
}

const shown = (work) => work.catch((error) => tell(error.message, true));
find("file").addEventListener("change", (event) => event.target.files[0] && shown(send(event.target.files[0])));
find("tiles").addEventListener("change", () => file && shown(send()));
find("score").addEventListener("input", draw);
find("model").addEventListener("change", () => { choose(); draw(); });
find("token").addEventListener("change", () => shown(load()));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", over);
    if (name === "drop" && event.dataTransfer.files[0]) shown(send(event.dataTransfer.files[0]));
  });
}
shown(load());
