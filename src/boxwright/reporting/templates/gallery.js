// Galleries in the order of a number of their pictures, greatest first; pictures without it stand last.
document.querySelectorAll("select[data-order]").forEach((select) => {
  const gallery = select.closest("label").nextElementSibling;
  const chosen = [...gallery.children];
  select.addEventListener("change", () => {
    const value = (figure) => JSON.parse(figure.dataset.keys)[select.value] ?? -Infinity;
    const order = select.value ? [...chosen].sort((a, b) => value(b) - value(a)) : chosen;
    gallery.append(...order);
  });
});

// Arrow keys step from picture to picture.
document.querySelectorAll(".gallery figure").forEach((figure) => { figure.tabIndex = 0; });
document.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || event.target.closest("select, input, textarea")) return;
  const figures = [...document.querySelectorAll("details[open] .gallery figure")];
  const next = figures[figures.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.scrollIntoView({ block: "center" });
});
