// What the pointer does: choose, move, resize, turn, draw, pan and zoom.
import { change } from "./actions.js";
import { choose, redraw } from "./panels.js";
import { center, handles, holds, resized, spanned, turned } from "./shapes.js";
import { $, period, shapeOf, state } from "./state.js";

const HANDLE = 8;  // screen px around a handle that take hold of it
const STILL = 3;  // screen px within which a press is a click

const at = (event) => {
  const frame = $("boxes").getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
};

// The smallest box around a point, so that what lies on top of others can be chosen; labels before predictions.
function boxAt(point) {
  const found = [...state.boxes.filter((b) => !b.gone), ...(state.showPredictions ? state.predictions : [])]
    .filter((b) => holds(b, point));
  found.sort((a, b) => (a.prediction ? 1 : 0) - (b.prediction ? 1 : 0) || a.w * a.h - b.w * b.h);
  return found[0] || null;
}

function grip(screen) {
  const box = state.chosenBox, { view } = state;
  if (!box || box.prediction) return null;
  const near = handles(box, state.oriented, 24 / view.scale).map((handle) => {
    const [hx, hy] = view.toScreen(handle.at);
    return { handle, far: Math.hypot(hx - screen[0], hy - screen[1]) };
  }).filter((one) => one.far <= HANDLE);
  near.sort((a, b) => a.far - b.far);
  return near[0]?.handle || null;
}

export function setDrawing(on) {
  state.drawing = on;
  $("boxes").style.cursor = on ? "crosshair" : "default";
}

function press(event) {
  if (event.button !== 0 && event.button !== 1) return;
  const canvas = $("boxes"), { view } = state, from = at(event), first = view.toImage(from), box = state.chosenBox;
  canvas.setPointerCapture(event.pointerId);
  const before = shapeOf(box), main = event.button === 0;
  const held = main && !state.drawing ? grip(from) : null;
  const moves = main && !held && !state.drawing && box && !box.prediction && holds(box, first);
  let last = from, far = 0;

  const move = (e) => {
    const to = at(e), point = view.toImage(to);
    far = Math.max(far, Math.hypot(to[0] - from[0], to[1] - from[1]));
    if (state.drawing && main) state.drawn = spanned(first, point, state.category, state.oriented);
    else if (held?.turn) {
      const [cx, cy] = center(before);
      Object.assign(box, turned(before, Math.atan2(point[1] - cy, point[0] - cx), period()));
    } else if (held) Object.assign(box, resized(before, held, point));
    else if (moves) Object.assign(box, { x: before.x + point[0] - first[0], y: before.y + point[1] - first[1] });
    else view.pan(to[0] - last[0], to[1] - last[1]);
    last = to;
    view.draw();
  };
  const up = () => {
    for (const [name, act] of [["pointermove", move], ["pointerup", up], ["pointercancel", up]]) {
      canvas.removeEventListener(name, act);
    }
    const drawn = state.drawn;
    state.drawn = null;
    if (drawn) {
      setDrawing(false);
      if (far > STILL) {
        const added = {};
        change(added, drawn);
        choose(added);
      }
    } else if ((held || moves) && far > 1) {
      const after = shapeOf(box);
      Object.assign(box, before);
      change(box, after);
    } else if (far <= STILL && main) choose(boxAt(first));
    redraw();
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
}

$("boxes").addEventListener("pointerdown", press);
$("boxes").addEventListener("wheel", (event) => {
  event.preventDefault();
  state.view.zoom(Math.exp(-event.deltaY * 0.0015), at(event));
}, { passive: false });
