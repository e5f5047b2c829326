// The values of every line nearest to the pointer, in a box beside it.
{
  const box = document.createElement("div");
  box.className = "values";
  document.body.append(box);
  for (const svg of document.querySelectorAll("svg[data-plot]")) {
    const lines = JSON.parse(svg.dataset.plot).filter((line) => line.px.length);
    const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
    rule.setAttribute("class", "rule");
    svg.append(rule);
    const nearest = (places, at) =>
      places.reduce((best, x, n) => (Math.abs(x - at) < Math.abs(places[best] - at) ? n : best), 0);
    const show = (event) => {
      const frame = svg.getBoundingClientRect();
      const at = ((event.clientX - frame.left) / frame.width) * svg.viewBox.baseVal.width;
      const found = lines.map((line) => nearest(line.px, at));
      const place = lines[0].px[found[0]];
      for (const [name, value] of [["x1", place], ["x2", place], ["y1", 12], ["y2", svg.viewBox.baseVal.height - 42]])
        rule.setAttribute(name, value);
      box.replaceChildren(...lines.map((line, n) => {
        const row = document.createElement("div");
        const mark = document.createElement("i");
        mark.style.background = `var(--c${line.color})`;
        row.append(mark, `${line.name}: ${line.y[found[n]]} at ${line.x[found[n]]}`);
        return row;
      }));
      box.style.left = `${Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + scrollX}px`;
      box.style.top = `${event.clientY + 14 + scrollY}px`;
      box.style.visibility = rule.style.visibility = "visible";
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerleave", () => { box.style.visibility = rule.style.visibility = "hidden"; });
  }
}
