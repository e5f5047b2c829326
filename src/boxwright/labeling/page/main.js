// The review page: which images there are, which is open, and what others do meanwhile.
import { forget, lookAt, setCategory } from "./actions.js";
import { Outbox, get } from "./net.js";
import { choose, redraw, showClasses, showPeople, showPlace, showSuspicions, tell, tellSaved } from "./panels.js";
import { $, person, state } from "./state.js";
import { View } from "./view.js";
import "./keys.js";
import "./pointer.js";

const POLL = 1000;  // ms
let since = 0;  // the last action that is known here

async function start() {
  const project = await get("/api/project");
  $("person").value = localStorage.getItem("boxwright-person") || project.person;
  since = project.last_action;
  state.view = new View($("picture"), $("boxes"), state);
  state.outbox = new Outbox(tellSaved);
  Object.assign(state, { project, oriented: project.oriented });
  for (const name of ["name", ...Object.keys(project.queues)]) $("queue").add(new Option(name));
  project.categories.forEach((name, n) => $("only-class").add(new Option(name, n)));
  for (const kind of [...new Set(project.kinds.flat())].sort()) $("only-kind").add(new Option(kind));
  $("queue").value = ["next round", "wrong labels", "name"].find((name) => name === "name" || project.queues[name]);
  state.view.fitCanvas();
  showClasses();
  reorder();
  await openPlace(0);
  setInterval(poll, POLL);
}

function reorder() {
  const { project } = state, values = project.queues[$("queue").value];
  const category = $("only-class").value, kind = $("only-kind").value, wanted = $("only-state").value;
  const order = project.images.map((_, n) => n).filter((n) =>
    (category === "" || project.classes[n].includes(Number(category))) &&
    (kind === "" || project.kinds[n].includes(kind)) &&
    (wanted === "" || project.images[n].state === wanted));
  if (values) order.sort((a, b) => values[b] - values[a] || a - b);
  Object.assign(state, { order, place: order.indexOf(state.image) });
  showPlace();
}

export async function openPlace(next) {
  if (next < 0 || next >= state.order.length) return;
  const wanted = state.order[next];
  Object.assign(state, { place: next, image: wanted, boxes: [], predictions: [], suspicions: [], suspicion: null });
  state.drawn = null;
  forget();
  choose(null);
  tell("");
  showPlace();
  try {
    const found = await get(`/api/images/${wanted}`);
    if (state.image !== wanted) return;
    state.boxes = found.boxes;
    state.predictions = found.predictions.map((p) => ({ ...p, prediction: true }));
    state.suspicions = found.suspicions;
    state.view.open(wanted, found.levels, state.project);
    showClasses();
  } catch (error) {
    tell(error.message);
  }
  showSuspicions();
  forget();
}

async function poll() {
  const { outbox, image, project } = state, where = image == null ? "" : `&image=${image}`;
  let found;
  try {
    found = await get(`/api/changes?since=${since}&person=${encodeURIComponent(person())}${where}`);
  } catch (error) {
    tellSaved(outbox.queue.length, `the server doesn't answer: ${error.message}`);
    return;
  }
  if (outbox.queue.length) return;  // own actions first: what others do is asked for once more
  tellSaved(0, "");
  for (const action of found.actions) {
    since = Math.max(since, action.action_id);
    if (action.kind === "state") project.images[action.image_id].state = action.after;
  }
  const changed = found.boxes.filter((box) => box.image_id === state.image && isNew(box));
  if (found.actions.length) showPlace();
  if (changed.length) redraw();
  showPeople(found.people);
}

// Takes a box as the server has it, where that is later than what is here.
function isNew(box) {
  const own = state.boxes.find((b) => b.box_id === box.box_id);
  if (own && own.version >= box.version) return false;
  if (own) Object.assign(own, { gone: undefined }, box);
  else if (!box.gone) state.boxes.push(box);
  return Boolean(own) || !box.gone;
}

$("previous").onclick = () => openPlace(state.place - 1);
$("next").onclick = () => openPlace(state.place + 1);
$("person").onchange = () => localStorage.setItem("boxwright-person", $("person").value);
for (const id of ["queue", "only-class", "only-kind", "only-state"]) {
  $(id).onchange = () => {
    reorder();
    $(id).blur();
    if (state.place < 0) openPlace(0);
  };
}
$("classes").onclick = (event) => {
  const line = event.target.closest("li");
  if (line) setCategory(Number(line.dataset.category));
};
$("suspicions").onclick = (event) => {
  const line = event.target.closest("li");
  if (line) lookAt(state.suspicions[Number(line.dataset.suspicion)]);
};
addEventListener("beforeunload", (event) => { if (state.outbox?.queue.length) event.preventDefault(); });
window.review = { state, get view() { return state.view; } };  // for a look from the console

start().catch((error) => tell(error.message));
