// The image in tiles, seen through a window that pans and zooms, and the boxes over it.
import { center, corners, handles, path } from "./shapes.js";

const MOST_TILES = 300;
const BEYOND = 0.5;  // of the window, on each side, that is drawn too
const REST = 150;  // ms without zooming
const PALETTE = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#f0e442", "#0072b2", "#bbbbbb"];
export const colorOf = (category) => PALETTE[category % PALETTE.length];

export class View {
  constructor(picture, boxes, state) {
    this.picture = picture;
    this.boxes = boxes;
    this.state = state;  // what is drawn: see main.js
    this.scale = 1;
    this.left = 0;
    this.top = 0;
    this.tiles = new Map();
    this.layer = null;
    this.stale = true;
    this.zoomed = 0;
    this.frame = 0;
    new ResizeObserver(() => this.fitCanvas()).observe(picture.parentElement);
  }

  fitCanvas() {
    const { clientWidth, clientHeight } = this.picture.parentElement, ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.picture, this.boxes]) {
      canvas.width = Math.round(clientWidth * ratio);
      canvas.height = Math.round(clientHeight * ratio);
    }
    this.width = clientWidth;
    this.height = clientHeight;
    this.ratio = ratio;
    this.stale = true;
    if (this.levels && !this.placed) this.whole();
    this.draw();
  }

  open(image, levels, { tile, labels }) {
    this.image = image;
    this.levels = levels;
    this.tile = tile;
    this.labels = labels;  // in addresses, so that no other set's tiles come out of the browser's cache
    this.tiles.clear();
    this.changed();
    this.whole();
  }

  whole() {
    const [w, h] = this.levels[0];
    this.placed = this.width > 0;
    this.scale = Math.min(this.width / w, this.height / h) * 0.98 || 1;
    this.left = w / 2 - this.width / 2 / this.scale;
    this.top = h / 2 - this.height / 2 / this.scale;
    this.draw();
  }

  zoomTo(box) {
    const points = corners(box), xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
    const side = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 8) * 3;
    this.scale = Math.min(this.width, this.height) / side;
    this.left = (Math.max(...xs) + Math.min(...xs)) / 2 - this.width / 2 / this.scale;
    this.top = (Math.max(...ys) + Math.min(...ys)) / 2 - this.height / 2 / this.scale;
    this.draw();
  }

  zoom(factor, [sx, sy]) {
    const [px, py] = this.toImage([sx, sy]);
    this.scale = Math.min(64, Math.max(0.01, this.scale * factor));
    this.left = px - sx / this.scale;
    this.top = py - sy / this.scale;
    this.zoomed = performance.now();
    this.draw();
  }

  pan(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.draw();
  }

  toImage([sx, sy]) { return [this.left + sx / this.scale, this.top + sy / this.scale]; }
  toScreen([px, py]) { return [(px - this.left) * this.scale, (py - this.top) * this.scale]; }

  // Boxes are others than before, beside the chosen one.
  changed() {
    this.stale = true;
    this.draw();
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  paint() {
    if (!this.levels || !this.width) return;
    this.paintTiles();
    this.paintBoxes();
    this.painted = (this.painted || 0) + 1;
  }

  paintTiles() {
    const context = this.picture.getContext("2d", { alpha: false });
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = "#0f1012";
    context.fillRect(0, 0, this.width, this.height);
    context.imageSmoothingEnabled = this.scale < 3;
    // Coarser levels first: they fill what finer tiles haven't brought yet.
    let level = 0;
    while (level + 1 < this.levels.length && this.scale * this.ratio * 2 ** (level + 1) <= 1) level++;
    for (let at = this.levels.length - 1; at >= level; at--) {
      if (at === level || at === this.levels.length - 1) this.paintLevel(context, at);
    }
  }

  paintLevel(context, level) {
    const [w, h] = this.levels[level], [fullW, fullH] = this.levels[0], step = this.tile;
    const fx = fullW / w, fy = fullH / h;
    const first = [Math.max(0, Math.floor(this.left / fx / step)), Math.max(0, Math.floor(this.top / fy / step))];
    const [right, bottom] = this.toImage([this.width, this.height]);
    const last = [
      Math.min(Math.ceil(w / step), Math.ceil(right / fx / step)),
      Math.min(Math.ceil(h / step), Math.ceil(bottom / fy / step)),
    ];
    for (let row = first[1]; row < last[1]; row++) {
      for (let column = first[0]; column < last[0]; column++) {
        const bitmap = this.tileOf(level, column, row);
        if (!bitmap) continue;
        const [sx, sy] = this.toScreen([column * step * fx, row * step * fy]);
        context.drawImage(bitmap, sx, sy, bitmap.width * fx * this.scale, bitmap.height * fy * this.scale);
      }
    }
  }

  tileOf(level, column, row) {
    const key = `${level}/${column}/${row}`, known = this.tiles.get(key);
    if (known !== undefined) {
      this.tiles.delete(key);
      this.tiles.set(key, known);
      return known;
    }
    const tiles = this.tiles, image = this.image;
    tiles.set(key, null);
    fetch(`/api/images/${image}/tiles/${key}?of=${this.labels}`)
      .then((response) => (response.ok ? response.blob() : Promise.reject(new Error(response.statusText))))
      .then(createImageBitmap)
      .then((bitmap) => {
        if (this.image !== image) return;
        tiles.set(key, bitmap);
        for (const old of tiles.keys()) {
          if (tiles.size <= MOST_TILES) break;
          tiles.delete(old);
        }
        this.draw();
      })
      .catch(() => { if (this.image === image) tiles.delete(key); });
    return null;
  }

  paintBoxes() {
    const context = this.boxes.getContext("2d"), { state, scale } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const layer = this.settledLayer(), [sx, sy] = this.toScreen([layer.left, layer.top]), k = scale / layer.scale;
    context.drawImage(layer.canvas, sx, sy, layer.width * k, layer.height * k);
    const whole = scale * this.ratio;
    context.setTransform(whole, 0, 0, whole, -this.left * whole, -this.top * whole);
    const one = state.suspicion;
    if (one?.new_x != null) {
      const after = { x: one.new_x, y: one.new_y, w: one.new_w, h: one.new_h, angle: one.new_angle };
      this.outline(context, after, "#ffffff", 2, [6 / scale, 4 / scale]);
    }
    const chosen = state.drawn || state.chosen();
    if (chosen) this.paintChosen(context, chosen);
  }

  // All boxes but the chosen one, drawn once beyond the window's borders: to pan is to move this picture. While
  // one zooms it is stretched, and drawn anew when that has come to rest.
  settledLayer() {
    const { layer } = this, [right, bottom] = this.toImage([this.width, this.height]);
    if (layer && !this.stale) {
      const holdsAll = this.left >= layer.left && this.top >= layer.top &&
        right <= layer.left + layer.width / layer.scale && bottom <= layer.top + layer.height / layer.scale;
      if (layer.scale === this.scale && holdsAll) return layer;
      if (layer.scale !== this.scale && performance.now() - this.zoomed < REST) {
        setTimeout(() => this.draw(), REST);
        return layer;
      }
    }
    this.layer = this.makeLayer();
    this.stale = false;
    return this.layer;
  }

  makeLayer() {
    const { state, scale, ratio } = this, width = this.width * (1 + 2 * BEYOND), height = this.height * (1 + 2 * BEYOND);
    const left = this.left - this.width * BEYOND / scale, top = this.top - this.height * BEYOND / scale;
    const canvas = this.layer?.canvas || document.createElement("canvas");
    canvas.width = Math.ceil(width * ratio);
    canvas.height = Math.ceil(height * ratio);
    const context = canvas.getContext("2d"), k = scale * ratio;
    context.setTransform(k, 0, 0, k, -left * k, -top * k);
    const right = left + width / scale, bottom = top + height / scale, chosen = state.chosen();
    const seen = (b) => {
      const reach = (b.w + b.h) / 2, [cx, cy] = center(b);
      return b !== chosen && !b.gone && cx + reach > left && cx - reach < right && cy + reach > top && cy - reach < bottom;
    };
    this.strokeAll(context, state.boxes.filter(seen), 1.5 / scale);
    if (state.showPredictions) {
      context.setLineDash([4 / scale, 3 / scale]);
      this.strokeAll(context, state.predictions.filter(seen), 1 / scale);
    }
    return { canvas, left, top, scale, width, height };
  }

  strokeAll(context, boxes, width) {
    context.lineWidth = width;
    for (const category of new Set(boxes.map((b) => b.category_id))) {
      const own = new Path2D();
      for (const box of boxes) if (box.category_id === category) path(box, own);
      context.strokeStyle = colorOf(category);
      context.stroke(own);
    }
  }

  outline(context, box, color, width, dash = []) {
    const own = new Path2D();
    path(box, own);
    context.strokeStyle = color;
    context.lineWidth = width / this.scale;
    context.setLineDash(dash);
    context.stroke(own);
    context.setLineDash([]);
  }

  paintChosen(context, box) {
    const { scale, state } = this;
    this.outline(context, box, "#000000", 4);
    this.outline(context, box, box.prediction ? "#ffffff" : colorOf(box.category_id), 2.5);
    context.fillStyle = "#ffffff";
    const found = handles(box, state.oriented, 24 / scale);
    for (const handle of found) {
      const [hx, hy] = handle.at, half = 3.5 / scale;
      if (handle.turn) {
        const ahead = found.find((h) => h.u === 1 && h.v === 0).at;
        context.beginPath();
        context.moveTo(...ahead);
        context.lineTo(hx, hy);
        context.strokeStyle = "#ffffff";
        context.lineWidth = 1.5 / scale;
        context.stroke();
        context.beginPath();
        context.arc(hx, hy, 5 / scale, 0, 2 * Math.PI);
        context.fill();
      } else if (!box.prediction) context.fillRect(hx - half, hy - half, 2 * half, 2 * half);
    }
  }
}
