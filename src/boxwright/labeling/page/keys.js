// What keys do, and the list of them.
import {
  applySuspicion, growBy, moveBy, nextSuspicion, redo, remove, setCategory, setState, takePrediction, turnBy, undo,
} from "./actions.js";
import { openPlace } from "./main.js";
import { choose, element } from "./panels.js";
import { setDrawing } from "./pointer.js";
import { center } from "./shapes.js";
import { $, state } from "./state.js";

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
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const DEGREE = Math.PI / 180;
const turn = (sign) => (event) => turnBy(sign * DEGREE * (event.shiftKey ? 10 : 1));

const SIMPLE = {
  PageDown: () => openPlace(state.place + 1),
  PageUp: () => openPlace(state.place - 1),
  Enter: () => {
    setState("accepted");
    openPlace(state.place + 1);
  },
  g: () => setState(state.project.images[state.image].state === "flagged" ? "open" : "flagged"),
  b: () => setDrawing(!state.drawing),
  Escape: () => {
    setDrawing(false);
    choose(null);
  },
  Delete: remove, Backspace: remove,
  m: takePrediction, s: nextSuspicion, r: applySuspicion,
  q: turn(-1), e: turn(1), h: () => turnBy(Math.PI),
  f: () => state.view.whole(),
  z: () => state.chosenBox && state.view.zoomTo(state.chosenBox),
  v: () => {
    state.showPredictions = !state.showPredictions;
    state.view.changed();
  },
  "?": () => $("help").showModal(),
};

function nextBox(step) {
  const shown = state.boxes.filter((b) => !b.gone), { view } = state;
  if (!shown.length) return;
  const now = shown.indexOf(state.chosenBox);
  const box = shown[now < 0 ? (step > 0 ? 0 : shown.length - 1) : (now + step + shown.length) % shown.length];
  choose(box);
  const [sx, sy] = view.toScreen(center(box));
  if (sx < 0 || sy < 0 || sx > view.width || sy > view.height) view.zoomTo(box);
}

function arrow(event) {
  const [dx, dy] = ARROWS[event.key], step = event.shiftKey ? 10 : 1;
  if (event.altKey) growBy(dx * step, -dy * step);
  else if (state.chosenBox) moveBy(dx * step, dy * step);
  else if (dx) openPlace(state.place + dx);
}

function actionOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) return key === "y" || (key === "z" && event.shiftKey) ? redo : key === "z" ? undo : null;
  if (key === "Tab") return () => nextBox(event.shiftKey ? -1 : 1);
  if (key in ARROWS) return arrow;
  if (/^[0-9]$/.test(key)) return () => setCategory((Number(key) + 9) % 10);
  return SIMPLE[key];
}

document.addEventListener("keydown", (event) => {
  if (!state.project || ["INPUT", "SELECT"].includes(event.target.tagName) || $("help").open) return;
  const action = actionOf(event);
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
