// What a person does to boxes and images: here at once, on the server in its turn, and back again.
import { choose, redraw, showClasses, showPlace, showSuspicions, tell } from "./panels.js";
import { center, holds, turned } from "./shapes.js";
import { period, person, shapeOf, state } from "./state.js";

const IDLE = 60;  // seconds between actions beyond which nobody was working
let history = [], future = [], lastAction = performance.now();

// Another image is open: what was done before isn't undone here.
export function forget() {
  history = [];
  future = [];
  lastAction = performance.now();
}

function seconds() {
  const now = performance.now(), passed = (now - lastAction) / 1000;
  lastAction = now;
  return Math.min(passed, IDLE);
}

// Change a box to a shape; null: it goes.
export function change(box, after, { undo = false, origin = "drawn" } = {}) {
  const before = shapeOf(box), own = { image_id: state.image, person: person(), seconds: seconds(), after, undo, origin };
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
  const make = () => ({ ...own, box_id: box.box_id ?? null, version: box.version ?? 0 });
  const done = (content) => Object.assign(box, { box_id: content.box.box_id, version: content.box.version });
  state.outbox.send(make, done, (error) => refused(box, error));
}

function refused(box, error) {
  tell(error.message);
  if (error.box) Object.assign(box, { gone: undefined }, error.box);
  else if (box.box_id == null) box.gone = true;
  history = history.filter((one) => one.box !== box);
  future = future.filter((one) => one.box !== box);
  redraw();
}

function restore(box, shape) {
  change(box, shape, { undo: true });
  choose(box.gone ? null : box);
}

export function undo() {
  const last = history.pop();
  if (!last) return;
  future.push(last);
  restore(last.box, last.before);
}

export function redo() {
  const last = future.pop();
  if (!last) return;
  history.push(last);
  restore(last.box, last.after);
}

export function setState(next) {
  const own = { image_id: state.image, person: person(), seconds: seconds(), state: next };
  state.project.images[state.image].state = next;
  showPlace();
  state.outbox.send(() => own, () => {}, (error) => tell(error.message));
}

// The chosen label; predictions don't change.
const label = () => (state.chosenBox?.prediction ? null : state.chosenBox);

export function remove() {
  const box = label();
  if (!box) return;
  choose(null);
  change(box, null);
}

export function setCategory(category) {
  if (category >= state.project.categories.length) return;
  state.category = category;
  const box = label();
  if (box && box.category_id !== category) change(box, { ...shapeOf(box), category_id: category });
  showClasses();
}

export function moveBy(dx, dy) {
  const box = label();
  if (box) change(box, { ...shapeOf(box), x: box.x + dx, y: box.y + dy });
}

export function growBy(dw, dh) {
  const box = label();
  if (!box) return;
  const w = Math.max(1, box.w + dw), h = Math.max(1, box.h + dh);
  change(box, { ...shapeOf(box), x: box.x + (box.w - w) / 2, y: box.y + (box.h - h) / 2, w, h });
}

export function turnBy(angle) {
  const box = label();
  if (box && state.oriented) change(box, turned(shapeOf(box), box.angle + angle, period()));
}

// The model's box in place of the chosen label, or as a label where none is there.
export function takePrediction() {
  const box = state.chosenBox;
  if (box?.prediction) {
    const added = {};
    change(added, { ...shapeOf(box) }, { origin: "model" });
    choose(added);
  } else if (box) {
    const near = state.predictions.filter((p) => holds(p, center(box)) && p.category_id === box.category_id);
    near.sort((a, b) => b.score - a.score);
    if (near.length) change(box, { ...shapeOf(near[0]) });
    else tell("the model has no box of this class here");
  }
}

const labelOf = ({ x, y, w, h }) => state.boxes.find((b) => !b.gone && b.x === x && b.y === y && b.w === w && b.h === h);

export function applySuspicion() {
  const one = state.suspicion;
  if (!one) return;
  const box = labelOf(one);
  if (one.x != null && !box) {
    tell("this label has changed since it was audited");
    return;
  }
  const after = one.new_category == null ? null : {
    category_id: state.project.categories.indexOf(one.new_category),
    x: one.new_x, y: one.new_y, w: one.new_w, h: one.new_h, angle: one.new_angle,
  };
  change(box || {}, after, { origin: box ? "drawn" : "model" });
  const place = state.suspicions.indexOf(one);
  state.suspicions = state.suspicions.filter((s) => s !== one);
  lookAt(state.suspicions[place] || state.suspicions[0] || null);
}

export function nextSuspicion() {
  const place = state.suspicions.indexOf(state.suspicion) + 1;
  lookAt(state.suspicions[place % Math.max(state.suspicions.length, 1)] || null);
}

export function lookAt(suspicion) {
  state.suspicion = suspicion;
  if (suspicion) {
    const { x, y, w, h, angle } = suspicion;
    choose(labelOf(suspicion) || null);
    state.view.zoomTo(x != null ? { x, y, w, h, angle } : {
      x: suspicion.new_x, y: suspicion.new_y, w: suspicion.new_w, h: suspicion.new_h, angle: suspicion.new_angle,
    });
  }
  showSuspicions();
}
