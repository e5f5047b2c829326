// The review page: what is open, what is chosen, what keys and the pointer do.
import { Outbox, get } from "./net.js";
import { center, handles, holds, resized, spanned, turned } from "./shapes.js";
import { View, colorOf } from "./view.js";

const HANDLE = 8;  // screen px around a handle that take hold of it
const IDLE = 60;  // seconds between actions beyond which nobody was working
const POLL = 1000;  // ms
const $ = (id) => document.getElementById(id);
const SHAPE = ["category_id", "x", "y", "w", "h", "angle"];
const shapeOf = (box) => (box?.w != null && !box.gone ? Object.fromEntries(SHAPE.map((n) => [n, box[n] ?? null])) : null);

const state = {
  boxes: [], predictions: [], suspicions: [], suspicion: null,
  chosenBox: null, drawn: null, drawing: false, showPredictions: true, category: 0, oriented: false,
  chosen: () => state.chosenBox,
};
let project, view, outbox, order = [], place = -1, image = null, history = [], future = [], since = 0;
let lastAction = performance.now();

// --- what is open -------------------------------------------------------------------------------------------

async function start() {
  project = await get("/api/project");
  state.oriented = project.oriented;
  since = project.last_action;
  $("person").value = localStorage.getItem("boxwright-person") || project.person;
  outbox = new Outbox(tellSaved);
  view = new View($("picture"), $("boxes"), state);
  view.fitCanvas();
  for (const name of ["name", ...Object.keys(project.queues)]) $("queue").add(new Option(name));
  project.categories.forEach((name, n) => $("only-class").add(new Option(name, n)));
  for (const kind of [...new Set(project.kinds.flat())].sort()) $("only-kind").add(new Option(kind));
  if (project.queues["wrong labels"]) $("queue").value = "wrong labels";
  showClasses();
  reorder();
  await openPlace(0);
  setInterval(poll, POLL);
}

function reorder() {
  const values = project.queues[$("queue").value], category = $("only-class").value;
  const kind = $("only-kind").value, wanted = $("only-state").value;
  order = project.images.map((_, n) => n).filter((n) =>
    (category === "" || project.classes[n].includes(Number(category))) &&
    (kind === "" || project.kinds[n].includes(kind)) &&
    (wanted === "" || project.images[n].state === wanted));
  if (values) order.sort((a, b) => values[b] - values[a] || a - b);
  place = order.indexOf(image);
  showPlace();
}

async function openPlace(next) {
  if (next < 0 || next >= order.length) return;
  const wanted = order[next];
  place = next;
  image = wanted;
  history = [];
  future = [];
  choose(null);
  Object.assign(state, { boxes: [], predictions: [], suspicions: [], suspicion: null, drawn: null });
  tell("");
  showPlace();
  try {
    const found = await get(`/api/images/${wanted}`);
    if (image !== wanted) return;
    state.boxes = found.boxes;
    state.predictions = found.predictions.map((p) => ({ ...p, prediction: true }));
    state.suspicions = found.suspicions;
    view.open(wanted, found.levels, project);
  } catch (error) {
    tell(error.message);
  }
  showSuspicions();
  lastAction = performance.now();
}

// --- actions ------------------------------------------------------------------------------------------------

function seconds() {
  const now = performance.now(), passed = (now - lastAction) / 1000;
  lastAction = now;
  return Math.min(passed, IDLE);
}

// Change a box to a shape (null: it goes), here at once and on the server in its turn.
function change(box, after, { undo = false, origin = "drawn" } = {}) {
  const before = shapeOf(box), took = seconds(), of = image, person = $("person").value || project.person;
  if (after === null) box.gone = true;
  else {
    delete box.gone;
    Object.assign(box, after);
  }
  if (!state.boxes.includes(box)) state.boxes.push(box);
  if (!undo) {
    history.push({ box, before, after });
    future = [];
  }
  redraw(box !== state.chosenBox);
  const make = () => ({
    image_id: of, person, seconds: took, box_id: box.box_id ?? null, version: box.version ?? 0, after, undo, origin,
  });
  const done = (content) => Object.assign(box, { box_id: content.box.box_id, version: content.box.version });
  outbox.send(make, done, (error) => refused(box, error));
}

function refused(box, error) {
  tell(error.message);
  if (error.box) Object.assign(box, { gone: undefined }, error.box);
  else if (box.box_id == null) box.gone = true;
  history = history.filter((one) => one.box !== box);
  redraw();
}

function restore(box, shape) {
  change(box, shape, { undo: true });
  choose(box.gone ? null : box);
}

function undo() {
  const last = history.pop();
  if (!last) return;
  future.push(last);
  restore(last.box, last.before);
}

function redo() {
  const last = future.pop();
  if (!last) return;
  history.push(last);
  restore(last.box, last.after);
}

function setState(next) {
  const of = image, took = seconds(), person = $("person").value || project.person;
  project.images[of].state = next;
  showPlace();
  outbox.send(() => ({ image_id: of, person, seconds: took, state: next }), () => {}, (error) => tell(error.message));
}

function remove() {
  const box = state.chosenBox;
  if (!box || box.prediction) return;
  choose(null);
  change(box, null);
}

function setCategory(category) {
  if (category >= project.categories.length) return;
  state.category = category;
  const box = state.chosenBox;
  if (box && !box.prediction && box.category_id !== category) change(box, { ...shapeOf(box), category_id: category });
  showClasses();
}

function moveBy(dx, dy) {
  const box = state.chosenBox;
  if (box && !box.prediction) change(box, { ...shapeOf(box), x: box.x + dx, y: box.y + dy });
}

function growBy(dw, dh) {
  const box = state.chosenBox;
  if (!box || box.prediction) return;
  const w = Math.max(1, box.w + dw), h = Math.max(1, box.h + dh);
  change(box, { ...shapeOf(box), x: box.x + (box.w - w) / 2, y: box.y + (box.h - h) / 2, w, h });
}

const period = () => (project.headings ? 2 * Math.PI : Math.PI);
function turnBy(angle) {
  const box = state.chosenBox;
  if (box && !box.prediction && state.oriented) change(box, turned(shapeOf(box), box.angle + angle, period()));
}

// The model's box in place of the chosen label, or as a label where none is there.
function takePrediction() {
  const box = state.chosenBox;
  if (box?.prediction) {
    const added = {};
    change(added, { ...shapeOf(box) }, { origin: "model" });
    choose(added);
  } else if (box) {
    const [cx, cy] = center(box);
    const near = state.predictions.filter((p) => holds(p, [cx, cy]) && p.category_id === box.category_id);
    near.sort((a, b) => b.score - a.score);
    if (near.length) change(box, { ...shapeOf(near[0]) });
    else tell("the model has no box of this class here");
  }
}

function applySuspicion() {
  const one = state.suspicion;
  if (!one) return;
  const box = state.boxes.find((b) => !b.gone && b.x === one.x && b.y === one.y && b.w === one.w && b.h === one.h);
  if (one.x != null && !box) return tell("this label has changed since it was audited");
  const after = one.new_category == null ? null : {
    category_id: project.categories.indexOf(one.new_category),
    x: one.new_x, y: one.new_y, w: one.new_w, h: one.new_h, angle: one.new_angle,
  };
  change(box || {}, after, { origin: box ? "drawn" : "model" });
  nextSuspicion(true);
}

function nextSuspicion(done = false) {
  const at = state.suspicions.indexOf(state.suspicion);
  if (done) state.suspicions = state.suspicions.filter((s) => s !== state.suspicion);
  lookAt(state.suspicions[(done ? at : at + 1) % Math.max(state.suspicions.length, 1)] || null);
}

function lookAt(suspicion) {
  state.suspicion = suspicion;
  if (suspicion) {
    const { x, y, w, h, angle } = suspicion;
    const label = state.boxes.find((b) => !b.gone && b.x === x && b.y === y && b.w === w && b.h === h);
    choose(label || null);
    const shown = x != null ? { x, y, w, h, angle }
      : { x: suspicion.new_x, y: suspicion.new_y, w: suspicion.new_w, h: suspicion.new_h, angle: suspicion.new_angle };
    view.zoomTo(shown);
  }
  showSuspicions();
}

// --- what others do -----------------------------------------------------------------------------------------

async function poll() {
  const person = encodeURIComponent($("person").value || project.person);
  let found;
  try {
    found = await get(`/api/changes?since=${since}&person=${person}${image == null ? "" : `&image=${image}`}`);
  } catch (error) {
    tellSaved(outbox.queue.length, `the server doesn't answer: ${error.message}`);
    return;
  }
  if (outbox.queue.length) return;  // own actions first: what others do is asked for once more
  tellSaved(0, "");
  let changed = false;
  for (const action of found.actions) {
    since = Math.max(since, action.action_id);
    if (action.kind === "state") project.images[action.image_id].state = action.after;
  }
  for (const box of found.boxes) {
    if (box.image_id !== image) continue;
    const own = state.boxes.find((b) => b.box_id === box.box_id);
    if (own && own.version >= box.version) continue;
    if (own) Object.assign(own, { gone: undefined }, box);
    else if (!box.gone) state.boxes.push(box);
    changed = true;
  }
  if (found.actions.length) showPlace();
  if (changed) redraw();
  showPeople(found.people);
}

// --- what is shown ------------------------------------------------------------------------------------------

function element(tag, text, cls = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

function choose(box) {
  state.chosenBox = box;
  if (box) state.category = box.category_id;
  redraw();
}

// `others`: boxes beside the chosen one may have changed.
function redraw(others = true) {
  if (others || state.chosenBox?.gone) view?.changed();
  else view?.draw();
  if (state.chosenBox?.gone) state.chosenBox = null;
  showClasses();
  const box = state.drawn || state.chosenBox;
  const angle = box?.angle == null ? "" : `, ${(box.angle * 180 / Math.PI).toFixed(1)}°`;
  const score = box?.prediction ? `\npredicted, ${box.score.toFixed(2)}` : "";
  $("box").textContent = box
    ? `${project.categories[box.category_id]}\n${box.w.toFixed(1)} x ${box.h.toFixed(1)} px${angle}` +
      `\nat ${box.x.toFixed(1)}, ${box.y.toFixed(1)}${score}`
    : "none is chosen";
}

function showPlace() {
  const own = project.images[image];
  const done = project.images.filter((one) => one.state === "accepted").length;
  $("place").textContent = `${place + 1} / ${order.length} (${done} accepted)`;
  $("name").textContent = own ? own.name || `image ${image}` : "no image is left";
  $("state").textContent = own ? own.state : "";
  $("state").className = own ? own.state : "";
}

function showClasses() {
  if (!project) return;
  $("classes").replaceChildren(...project.categories.map((name, n) => {
    const count = state.boxes.filter((b) => !b.gone && b.category_id === n).length;
    const line = element("li", "", n === state.category ? "chosen" : "");
    const swatch = element("span", "", "swatch");
    swatch.style.background = colorOf(n);
    line.append(element("kbd", n < 10 ? String((n + 1) % 10) : ""), swatch, element("span", name), element("span", count || ""));
    line.onclick = () => setCategory(n);
    return line;
  }));
}

function showSuspicions() {
  $("suspicions").replaceChildren(...state.suspicions.map((one) => {
    const text = `${one.kind} ${Math.round(one.probability * 100)} %: ${one.detail || one.category || one.new_category}`;
    const line = element("li", text, one === state.suspicion ? "chosen" : "");
    line.onclick = () => lookAt(one);
    return line;
  }));
}

function showPeople(people) {
  $("people").replaceChildren(...people.map(({ name, image: at }) =>
    element("li", at == null ? name : `${name}: ${project.images[at]?.name || at}`)));
}

function tell(text) { $("message").textContent = text; }

function tellSaved(waiting, trouble) {
  $("saved").textContent = trouble || (waiting ? `${waiting} to be saved` : "all is saved");
  $("saved").className = waiting || trouble ? "waiting" : "";
}

// --- pointer ------------------------------------------------------------------------------------------------

const at = (event) => {
  const frame = $("boxes").getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
};

// The smallest box around a point: what lies on top of others can be chosen.
function boxAt(point) {
  const found = [...state.boxes.filter((b) => !b.gone), ...(state.showPredictions ? state.predictions : [])]
    .filter((b) => holds(b, point));
  found.sort((a, b) => (a.prediction ? 1 : 0) - (b.prediction ? 1 : 0) || a.w * a.h - b.w * b.h);
  return found[0] || null;
}

function grip(screen) {
  const box = state.chosenBox;
  if (!box || box.prediction) return null;
  const near = handles(box, state.oriented, 24 / view.scale).map((handle) => {
    const [hx, hy] = view.toScreen(handle.at);
    return { handle, far: Math.hypot(hx - screen[0], hy - screen[1]) };
  }).filter((one) => one.far <= HANDLE);
  near.sort((a, b) => a.far - b.far);
  return near[0]?.handle || null;
}

$("boxes").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 && event.button !== 1) return;
  const canvas = $("boxes"), from = at(event), first = view.toImage(from), box = state.chosenBox;
  canvas.setPointerCapture(event.pointerId);
  const before = box && { ...shapeOf(box) };
  const held = event.button === 0 && !state.drawing ? grip(from) : null;
  const moves = event.button === 0 && !held && !state.drawing && box && !box.prediction && holds(box, first);
  let last = from, far = 0;

  const move = (e) => {
    const to = at(e), point = view.toImage(to);
    far = Math.max(far, Math.hypot(to[0] - from[0], to[1] - from[1]));
    if (state.drawing && event.button === 0) {
      state.drawn = spanned(first, point, state.category, state.oriented);
    } else if (held?.turn) {
      const [cx, cy] = center(before);
      Object.assign(box, turned(before, Math.atan2(point[1] - cy, point[0] - cx), period()));
    } else if (held) Object.assign(box, resized(before, held, point));
    else if (moves) Object.assign(box, { x: before.x + point[0] - first[0], y: before.y + point[1] - first[1] });
    else view.pan(to[0] - last[0], to[1] - last[1]);
    last = to;
    view.draw();
  };
  const up = () => {
    canvas.removeEventListener("pointermove", move);
    canvas.removeEventListener("pointerup", up);
    canvas.removeEventListener("pointercancel", up);
    const drawn = state.drawn;
    state.drawn = null;
    if (drawn) {
      if (far > 3) {
        const added = {};
        change(added, drawn);
        choose(added);
      }
      setDrawing(false);
    } else if ((held || moves) && far > 1) {
      const after = shapeOf(box);
      Object.assign(box, before);
      change(box, after);
    } else if (far <= 3 && event.button === 0) choose(boxAt(first));
    redraw();
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
});

$("boxes").addEventListener("wheel", (event) => {
  event.preventDefault();
  view.zoom(Math.exp(-event.deltaY * 0.0015), at(event));
}, { passive: false });

function setDrawing(on) {
  state.drawing = on;
  $("boxes").style.cursor = on ? "crosshair" : "default";
}

// --- keys ---------------------------------------------------------------------------------------------------

function nextBox(step) {
  const shown = state.boxes.filter((b) => !b.gone);
  if (!shown.length) return;
  const at = shown.indexOf(state.chosenBox);
  const box = shown[(at + step + shown.length) % shown.length];
  choose(box);
  const [sx, sy] = view.toScreen(center(box));
  if (sx < 0 || sy < 0 || sx > view.width || sy > view.height) view.zoomTo(box);
}

const degrees = Math.PI / 180;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = [
  ["Page Down, Page Up", "next image, the one before"],
  ["Enter", "accept the image, and on to the next"],
  ["g", "flag the image, or not"],
  ["Tab, Shift Tab", "next box, the one before"],
  ["b", "draw a box (or Escape)"],
  ["1 to 9, 0", "class of the chosen box, and of the next to be drawn"],
  ["arrows", "move by a pixel (Shift: 10); without a box, the image before or after"],
  ["Alt arrows", "narrower, wider, lower, higher by a pixel (Shift: 10)"],
  ["q, e", "turn by a degree (Shift: 10)"],
  ["h", "turn by half: the other end is the front"],
  ["Delete", "take the box out"],
  ["m", "take the model's box"],
  ["v", "show the model's boxes, or not"],
  ["s", "next suspicion"],
  ["r", "repair as the audit proposes"],
  ["z", "zoom to the box"],
  ["f", "the whole image"],
  ["Ctrl z, Ctrl y", "undo, redo"],
];
const SIMPLE = {
  PageDown: () => openPlace(place + 1), PageUp: () => openPlace(place - 1),
  Enter: () => { setState("accepted"); openPlace(place + 1); },
  g: () => setState(project.images[image].state === "flagged" ? "open" : "flagged"),
  b: () => setDrawing(!state.drawing), Escape: () => { setDrawing(false); choose(null); },
  Delete: remove, Backspace: remove, m: takePrediction, s: () => nextSuspicion(), r: applySuspicion,
  q: (event) => turnBy(event.shiftKey ? -10 * degrees : -degrees), e: (event) => turnBy(event.shiftKey ? 10 * degrees : degrees),
  h: () => turnBy(Math.PI), f: () => view.whole(), z: () => state.chosenBox && view.zoomTo(state.chosenBox),
  v: () => { state.showPredictions = !state.showPredictions; view.changed(); },
  "?": () => $("help").showModal(),
};

function arrow(event) {
  const [dx, dy] = ARROWS[event.key], step = event.shiftKey ? 10 : 1;
  if (event.altKey) growBy(dx * step, -dy * step);
  else if (state.chosenBox) moveBy(dx * step, dy * step);
  else if (dx) openPlace(place + dx);
}

document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT"].includes(event.target.tagName) || $("help").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") action = event.shiftKey ? redo : undo;
    if (key === "y") action = redo;
  } else if (key === "Tab") action = () => nextBox(event.shiftKey ? -1 : 1);
  else if (key in ARROWS) action = () => arrow(event);
  else if (/^[0-9]$/.test(key)) action = () => setCategory((Number(key) + 9) % 10);
  else action = SIMPLE[key];
  if (!action) return;
  event.preventDefault();
  action(event);
});

$("keys").append(...KEYS.map(([key, text]) => {
  const row = document.createElement("tr");
  row.append(element("td", key), element("td", text));
  return row;
}));
$("help-button").onclick = () => $("help").showModal();
$("previous").onclick = () => openPlace(place - 1);
$("next").onclick = () => openPlace(place + 1);
$("person").onchange = () => localStorage.setItem("boxwright-person", $("person").value);
for (const id of ["queue", "only-class", "only-kind", "only-state"]) {
  $(id).onchange = () => {
    reorder();
    $(id).blur();
    if (place < 0) openPlace(0);
  };
}
addEventListener("beforeunload", (event) => { if (outbox?.queue.length) event.preventDefault(); });
window.review = { state, get view() { return view; } };  // for a look from the console

start().catch((error) => tell(error.message));
