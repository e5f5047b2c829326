// What is open and what is chosen, for all parts of the page.

export const $ = (id) => document.getElementById(id);

export const state = {
  project: null,  // classes, images, queues: see /api/project
  view: null, outbox: null,
  order: [], place: -1, image: null,  // images of the queue, where in it we are, which image that is
  boxes: [], predictions: [], suspicions: [], suspicion: null,
  chosenBox: null, drawn: null, drawing: false, showPredictions: true, category: 0, oriented: false,
  chosen: () => state.chosenBox,
};

const SHAPE = ["category_id", "x", "y", "w", "h", "angle"];
export const shapeOf = (box) =>
  (box?.w != null && !box.gone ? Object.fromEntries(SHAPE.map((n) => [n, box[n] ?? null])) : null);

export const person = () => $("person").value || state.project.person;
export const period = () => (state.project.headings ? 2 * Math.PI : Math.PI);
