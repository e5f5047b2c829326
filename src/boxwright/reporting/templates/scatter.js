// Dots of crops: the crop beside the pointer, classes to be shown and hidden by their names.
for (const svg of document.querySelectorAll("svg.crops")) {
  const data = JSON.parse(svg.dataset.crops);
  const box = document.createElement("div");
  box.className = "values";
  document.body.append(box);
  const dots = [...svg.querySelectorAll("circle")];
  const hidden = new Set();
  const shown = (n) => !hidden.has(data.group[n]);
  const show = (event) => {
    const frame = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    let best = -1, least = 20 ** 2;
    data.x.forEach((own, n) => {
      const distance = (own - x) ** 2 + (data.y[n] - y) ** 2;
      if (distance < least && shown(n)) [best, least] = [n, distance];
    });
    if (best < 0) return hide();
    const crop = document.createElement("i");
    const [column, row] = [best % data.columns, Math.floor(best / data.columns)];
    crop.className = "crop";
    crop.style.backgroundImage = `url(${svg.dataset.sheet})`;
    crop.style.backgroundSize = `${data.columns * 144}px auto`;
    crop.style.backgroundPosition = `${-column * 144}px ${-row * 144}px`;
    const lines = data.told[best].split("\n").map((text) => {
      const line = document.createElement("div");
      line.textContent = text;
      return line;
    });
    box.replaceChildren(crop, ...lines);
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + scrollX}px`;
    box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8) + scrollY}px`;
    box.style.visibility = "visible";
  };
  const hide = () => { box.style.visibility = "hidden"; };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerleave", hide);
  svg.closest("figure").querySelectorAll("button[data-group]").forEach((button) => {
    button.addEventListener("click", () => {
      const group = Number(button.dataset.group);
      const on = !hidden.delete(group);
      if (on) hidden.add(group);
      button.setAttribute("aria-pressed", String(!on));
      dots.forEach((dot, n) => { dot.style.display = shown(n) ? "" : "none"; });
    });
  });
}
