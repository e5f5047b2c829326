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
