// What stands beside the picture. Names come from files: they are text, never markup.
import { $, state } from "./state.js";
import { colorOf } from "./view.js";

export function element(tag, text, cls = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

export function choose(box) {
  state.chosenBox = box;
  if (box) state.category = box.category_id;
  redraw();
}

// `others`: boxes beside the chosen one may have changed.
export function redraw(others = true) {
  if (others || state.chosenBox?.gone) state.view?.changed();
  else state.view?.draw();
  if (state.chosenBox?.gone) state.chosenBox = null;
  showClasses();
  showBox();
}

function showBox() {
  const box = state.drawn || state.chosenBox;
  if (!box) {
    $("box").textContent = "none is chosen";
    return;
  }
  const angle = box.angle == null ? "" : `, ${(box.angle * 180 / Math.PI).toFixed(1)}°`;
  const score = box.prediction ? `\npredicted, ${box.score.toFixed(2)}` : "";
  $("box").textContent = `${state.project.categories[box.category_id]}\n${box.w.toFixed(1)} x ${box.h.toFixed(1)} px` +
    `${angle}\nat ${box.x.toFixed(1)}, ${box.y.toFixed(1)}${score}`;
}

export function showPlace() {
  const { project, order, place, image } = state, own = project.images[image];
  const done = project.images.filter((one) => one.state === "accepted").length;
  $("place").textContent = `${place + 1} / ${order.length} (${done} accepted)`;
  $("name").textContent = own ? own.name || `image ${image}` : "no image is left";
  $("state").textContent = own ? own.state : "";
  $("state").className = own ? own.state : "";
}

export function showClasses() {
  if (!state.project) return;
  const count = new Map();
  for (const box of state.boxes) if (!box.gone) count.set(box.category_id, (count.get(box.category_id) || 0) + 1);
  $("classes").replaceChildren(...state.project.categories.map((name, n) => {
    const line = element("li", "", n === state.category ? "chosen" : ""), swatch = element("span", "", "swatch");
    swatch.style.background = colorOf(n);
    line.append(element("kbd", n < 10 ? String((n + 1) % 10) : ""), swatch, element("span", name));
    line.append(element("span", count.get(n) || ""));
    line.dataset.category = n;
    return line;
  }));
}

export function showSuspicions() {
  $("suspicions").replaceChildren(...state.suspicions.map((one, n) => {
    const text = `${one.kind} ${Math.round(one.probability * 100)} %: ${one.detail || one.category || one.new_category}${one.others ? ` (${one.others})` : ""}`;
    const line = element("li", text, one === state.suspicion ? "chosen" : "");
    line.dataset.suspicion = n;
    return line;
  }));
}

export function showPeople(people) {
  $("people").replaceChildren(...people.map(({ name, image }) =>
    element("li", image == null ? name : `${name}: ${state.project.images[image]?.name || image}`)));
}

export function tell(text) { $("message").textContent = text; }

export function tellSaved(waiting, trouble) {
  $("saved").textContent = trouble || (waiting ? `${waiting} to be saved` : "all is saved");
  $("saved").className = waiting || trouble ? "waiting" : "";
}
