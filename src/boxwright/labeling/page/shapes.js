// Boxes as numbers: x, y, w, h is the box before its turn by `angle` about its centre, clockwise on screen.

export const center = (b) => [b.x + b.w / 2, b.y + b.h / 2];

export function corners(b) {
  const [cx, cy] = center(b), cos = Math.cos(b.angle || 0), sin = Math.sin(b.angle || 0);
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => {
    const dx = u * b.w / 2, dy = v * b.h / 2;
    return [cx + dx * cos - dy * sin, cy + dx * sin + dy * cos];
  });
}

// A point of the image in the box's own frame, from its centre.
export function inside(b, [px, py]) {
  const [cx, cy] = center(b), cos = Math.cos(b.angle || 0), sin = Math.sin(b.angle || 0);
  const dx = px - cx, dy = py - cy;
  return [dx * cos + dy * sin, -dx * sin + dy * cos];
}

export function holds(b, point) {
  const [u, v] = inside(b, point);
  return Math.abs(u) <= b.w / 2 && Math.abs(v) <= b.h / 2;
}

// Where the handles of a box lie: u, v are -1, 0 or 1 along its sides; `turn` lies ahead of it.
export function handles(b, oriented, reach) {
  const [cx, cy] = center(b), cos = Math.cos(b.angle || 0), sin = Math.sin(b.angle || 0);
  const at = (dx, dy) => [cx + dx * cos - dy * sin, cy + dx * sin + dy * cos];
  const found = [];
  for (const u of [-1, 0, 1]) for (const v of [-1, 0, 1]) {
    if (u || v) found.push({ u, v, at: at(u * b.w / 2, v * b.h / 2) });
  }
  if (oriented) found.push({ turn: true, at: at(b.w / 2 + reach, 0) });
  return found;
}

// The box whose side or corner u, v was pulled to a point; the opposite one stays.
export function resized(b, { u, v }, point, least = 1) {
  const [pu, pv] = inside(b, point), [cx, cy] = center(b);
  let [left, right, top, bottom] = [-b.w / 2, b.w / 2, -b.h / 2, b.h / 2];
  if (u < 0) left = Math.min(pu, right - least);
  if (u > 0) right = Math.max(pu, left + least);
  if (v < 0) top = Math.min(pv, bottom - least);
  if (v > 0) bottom = Math.max(pv, top + least);
  const du = (left + right) / 2, dv = (top + bottom) / 2, w = right - left, h = bottom - top;
  const cos = Math.cos(b.angle || 0), sin = Math.sin(b.angle || 0);
  const nx = cx + du * cos - dv * sin, ny = cy + du * sin + dv * cos;
  return { ...b, x: nx - w / 2, y: ny - h / 2, w, h };
}

export const turned = (b, angle, period) =>
  ({ ...b, angle: angle - period * Math.floor((angle + period / 2) / period) });

export function spanned([ax, ay], [bx, by], category_id, oriented) {
  return {
    category_id, x: Math.min(ax, bx), y: Math.min(ay, by), w: Math.abs(bx - ax), h: Math.abs(by - ay),
    angle: oriented ? 0 : null,
  };
}

export function path(b, into) {
  const [first, ...rest] = corners(b);
  into.moveTo(...first);
  for (const point of rest) into.lineTo(...point);
  into.closePath();
}
