// The frame view: zoom, pan, masks, clicks. Reported positions are pixels of the video's frame.
const EDGE = 255;
const FILL = 0.42;
const MAX_PIXELS = 1.8e6; // of upsampled masks
const DOUBLE_MS = 350;
const SLOP = { mouse: 4, touch: 10 }; // screen pixels a pointer may move during a click

export class View {
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.size = [16, 9];
    this.zoom = 1;
    this.center = null;
    this.mode = "overlay";
    this.tool = "add";
    this.radius = 18;
    this.style = { colours: {}, visible: new Set(), selected: null };
    this.prompts = [];
    this.image = null;
    this.masks = null;
    this.proposals = null;
    this.hover = 0;
    this.drag = null;
    this.pointers = new Map();
    this.layer = document.createElement("canvas");
    this.found = document.createElement("canvas");
    this.ghost = document.createElement("canvas");
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (e) => this.#down(e));
    canvas.addEventListener("pointermove", (e) => this.#move(e));
    canvas.addEventListener("pointerup", (e) => this.#up(e));
    canvas.addEventListener("pointercancel", () => { this.pointers.clear(); this.drag = null; this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.cursor = null; this.#hoverAt(null); this.on.aim?.(null); });
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("wheel", (e) => this.#wheel(e), { passive: false });
  }

  setSize(width, height) { this.size = [width, height]; this.fit(); }
  fit() { this.zoom = 1; this.center = null; this.draw(); }
  setStyle(style) { this.style = style; this.#compose(); this.#paintLayer(); this.draw(); }
  setMode(mode) { this.mode = mode; this.#paintLayer(); this.draw(); }
  setTool(tool) { this.tool = tool; this.draw(); }
  // frame: index of the frame that is shown, which clicks are about.
  show(frame, image, masks, prompts) {
    this.frame = frame; this.image = image; this.masks = masks; this.prompts = prompts;
    this.#compose(); this.#paintLayer(); this.draw();
  }
  // Show what a click would add and remove; null: nothing.
  setPreview(map) { if (map || this.preview) { this.preview = map; this.#paintPreview(); this.draw(); } }
  setProposals(proposals) { this.proposals = proposals; this.#paintFound(); this.draw(); }

  // Position of the frame in the canvas, CSS pixels.
  place() {
    const box = this.canvas.getBoundingClientRect();
    const [width, height] = this.size;
    const pad = 12;
    const fit = Math.min((box.width - 2 * pad) / width, (box.height - 2 * pad) / height);
    const scale = Math.max(0.01, fit) * this.zoom;
    const [cx, cy] = this.center ?? [width / 2, height / 2];
    return { x: box.width / 2 - cx * scale, y: box.height / 2 - cy * scale, scale, box };
  }

  // Convert a point on the screen to frame coordinates; may lie outside the frame.
  toFrame(clientX, clientY) {
    const { x, y, scale, box } = this.place();
    return [(clientX - box.left - x) / scale, (clientY - box.top - y) / scale];
  }

  toScreen(fx, fy) {
    const { x, y, scale, box } = this.place();
    return [box.left + x + fx * scale, box.top + y + fy * scale];
  }

  labelAt(map, [fx, fy]) {
    if (!map) return 0;
    const x = Math.floor(fx * map.width / this.size[0]), y = Math.floor(fy * map.height / this.size[1]);
    return x < 0 || y < 0 || x >= map.width || y >= map.height ? 0 : map.labels[y * map.width + x];
  }

  zoomBy(factor, clientX, clientY) {
    const { box } = this.place();
    const at = [clientX ?? box.left + box.width / 2, clientY ?? box.top + box.height / 2];
    const before = this.toFrame(...at);
    this.zoom = Math.min(40, Math.max(1, this.zoom * factor));
    if (this.zoom === 1) { this.center = null; this.draw(); return; }
    this.center ??= [this.size[0] / 2, this.size[1] / 2];
    const after = this.toFrame(...at);
    this.#centerOn(this.center[0] + before[0] - after[0], this.center[1] + before[1] - after[1]);
    this.draw();
  }

  // A click placed by keys: a cross that arrows move, in screen pixels.
  startAim() { this.aim ??= this.size.map((side) => side / 2); this.draw(); }
  stopAim() { this.aim = null; this.#hoverAt(null); this.draw(); }
  moveAim(dx, dy) {
    const { scale } = this.place();
    this.aim = [[0, dx], [1, dy]].map(([i, by]) => Math.min(this.size[i] - 1, Math.max(0, this.aim[i] + by / scale)));
    this.#hoverAt(this.aim); this.draw();
  }
  clickAim(negative) {
    const [x, y] = this.aim.map(Math.floor);
    this.on.click({ x, y, frame: this.frame, negative: negative || this.tool === "subtract", pick: false, label: this.labelAt(this.seen, this.aim), found: this.labelAt(this.proposals, this.aim) });
  }

  draw() {
    if (this.scheduled) return;
    this.scheduled = requestAnimationFrame(() => { this.scheduled = null; this.#draw(); });
  }

  #draw() {
    const { x, y, scale, box } = this.place();
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) { this.canvas.width = w; this.canvas.height = h; }
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, box.width, box.height);
    const [fw, fh] = [this.size[0] * scale, this.size[1] * scale];
    g.imageSmoothingEnabled = scale * ratio < 4;
    g.imageSmoothingQuality = "high";
    if (this.mode === "cutout") this.#checkerboard(g, x, y, fw, fh);
    if (this.mode === "matte") { g.fillStyle = "#000"; g.fillRect(x, y, fw, fh); }
    if (this.image && this.mode === "overlay") g.drawImage(this.image, x, y, fw, fh);
    if (this.masks) g.drawImage(this.layer, x, y, fw, fh);
    if (this.proposals) g.drawImage(this.found, x, y, fw, fh);
    if (this.preview) g.drawImage(this.ghost, x, y, fw, fh);
    this.#drawPrompts(g, x, y, scale);
    this.#drawTool(g, x, y, scale);
  }

  #checkerboard(g, x, y, w, h) {
    const css = getComputedStyle(this.canvas);
    const tile = document.createElement("canvas");
    tile.width = tile.height = 16;
    const t = tile.getContext("2d");
    t.fillStyle = css.getPropertyValue("--check-a"); t.fillRect(0, 0, 16, 16);
    t.fillStyle = css.getPropertyValue("--check-b"); t.fillRect(0, 0, 8, 8); t.fillRect(8, 8, 8, 8);
    g.save(); g.translate(x, y);
    g.fillStyle = g.createPattern(tile, "repeat"); g.fillRect(0, 0, w, h);
    g.restore();
  }

  #drawPrompts(g, x, y, scale) {
    for (const prompt of this.prompts) {
      if (prompt.box && prompt.selected) {
        const [x0, y0, x1, y1] = prompt.box;
        g.setLineDash([5, 4]); g.lineWidth = 1.5; g.strokeStyle = prompt.colour;
        g.strokeRect(x + x0 * scale, y + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
        g.setLineDash([]);
      }
      for (const [px, py, label] of prompt.clicks) {
        const [sx, sy] = [x + (px + 0.5) * scale, y + (py + 0.5) * scale];
        const r = prompt.selected ? 7 : 4;
        g.beginPath(); g.arc(sx, sy, r, 0, 7);
        g.fillStyle = label ? prompt.colour : "#f4f5f8"; g.fill();
        g.lineWidth = 1.6; g.strokeStyle = label ? "#fff" : "#d23a3a"; g.stroke();
        if (!prompt.selected) continue;
        g.beginPath(); g.moveTo(sx - 3, sy); g.lineTo(sx + 3, sy);
        if (label) { g.moveTo(sx, sy - 3); g.lineTo(sx, sy + 3); }
        g.strokeStyle = label ? "#fff" : "#d23a3a"; g.stroke();
      }
    }
  }

  #drawTool(g, x, y, scale) {
    if (this.drag?.kind === "box") {
      const [[ax, ay], [bx, by]] = [this.drag.from, this.drag.to];
      g.setLineDash([5, 4]); g.lineWidth = 1.5; g.strokeStyle = "#fff";
      g.strokeRect(x + Math.min(ax, bx) * scale, y + Math.min(ay, by) * scale, Math.abs(bx - ax) * scale, Math.abs(by - ay) * scale);
      g.setLineDash([]);
    }
    const brushes = this.tool === "brush" || this.tool === "erase";
    const colour = this.tool === "erase" ? "#ffffff" : this.style.colours[this.style.selected] ?? "#7f8fff";
    if (this.drag?.kind === "stroke") {
      g.lineCap = g.lineJoin = "round"; g.lineWidth = 2 * this.radius * scale; g.globalAlpha = 0.5; g.strokeStyle = colour;
      g.beginPath();
      for (const [px, py] of this.drag.points) g.lineTo(x + px * scale, y + py * scale);
      if (this.drag.points.length === 1) { const [px, py] = this.drag.points[0]; g.lineTo(x + px * scale + 0.01, y + py * scale); }
      g.stroke(); g.globalAlpha = 1;
    }
    if (brushes && this.cursor) {
      g.beginPath(); g.arc(x + this.cursor[0] * scale, y + this.cursor[1] * scale, this.radius * scale, 0, 7);
      g.lineWidth = 1.5; g.strokeStyle = "#fff"; g.stroke();
    }
    if (this.aim) {
      const [ax, ay] = [x + this.aim[0] * scale, y + this.aim[1] * scale];
      for (const [width, style] of [[4, "#0b0c0f"], [1.6, "#fff"]]) {
        g.lineWidth = width; g.strokeStyle = style; g.beginPath();
        g.moveTo(ax - 16, ay); g.lineTo(ax - 4, ay); g.moveTo(ax + 4, ay); g.lineTo(ax + 16, ay);
        g.moveTo(ax, ay - 16); g.lineTo(ax, ay - 4); g.moveTo(ax, ay + 4); g.lineTo(ax, ay + 16);
        g.stroke();
      }
    }
    const positive = this.tool === "add" || this.tool === "subtract" || this.tool === "box";
    this.canvas.style.cursor = this.drag?.kind === "pan" ? "grabbing" : brushes ? "none" : positive ? "crosshair" : "default";
  }

  // What is seen of the masks: where an object is hidden, those that it covers are.
  #compose() {
    const { masks } = this, { visible } = this.style;
    if (!masks?.covered?.length || masks.objects.every(([id]) => visible.has(id))) { this.seen = masks; return; }
    const key = [...visible].join();
    if (this.seen?.from === masks && this.seen.key === key) return;
    const labels = masks.labels.slice();
    for (const { id, x, y, width, height, mask } of masks.covered) {
      if (!visible.has(id)) continue;
      for (let row = 0, i = 0; row < height; row++) {
        for (let at = (y + row) * masks.width + x, end = at + width; at < end; at++, i++) {
          if (mask[i] && !visible.has(masks.labels[at])) labels[at] = id;
        }
      }
    }
    this.seen = { ...masks, labels, from: masks, key };
  }

  // Render the masks to an image, again when they or their colors change.
  #paintLayer() {
    if (!this.seen) return;
    const { width, height, labels } = this.#enlarged(this.seen);
    this.layer.width = width; this.layer.height = height;
    const g = this.layer.getContext("2d");
    const image = g.createImageData(width, height);
    const out = new Uint32Array(image.data.buffer);
    const table = this.#table();
    const plain = this.mode !== "overlay";
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const label = labels[i];
        if (!label || !table.fill[label]) continue;
        const inside = plain || (x > 0 && labels[i - 1] === label && x < width - 1 && labels[i + 1] === label
          && y > 0 && labels[i - width] === label && y < height - 1 && labels[i + width] === label);
        out[i] = inside ? table.fill[label] : table.edge[label];
      }
    }
    g.putImageData(image, 0, 0);
    if (this.mode === "cutout" && this.image) {
      g.globalCompositeOperation = "source-in";
      g.drawImage(this.image, 0, 0, width, height);
      g.globalCompositeOperation = "source-over";
    }
  }

  // Upsample the label map of a small video to screen size, with smooth edges.
  #enlarged(map) {
    const ratio = window.devicePixelRatio || 1;
    const times = Math.min(Math.round(this.place().scale / this.zoom * ratio), Math.floor(Math.sqrt(MAX_PIXELS / (map.width * map.height))));
    if (times < 2 || this.zoom * times > 16) return map;
    if (this.large?.map === map && this.large.times === times) return this.large;
    const [width, height] = [map.width * times, map.height * times];
    const small = document.createElement("canvas"), big = document.createElement("canvas");
    small.width = map.width; small.height = map.height; big.width = width; big.height = height;
    const s = small.getContext("2d", { willReadFrequently: true }), b = big.getContext("2d", { willReadFrequently: true });
    const labels = new Uint8Array(width * height), best = new Uint8Array(width * height).fill(127);
    b.imageSmoothingQuality = "high";
    for (const id of new Set(map.labels)) {
      if (!id) continue;
      const image = s.createImageData(map.width, map.height);
      for (let i = 0; i < map.labels.length; i++) if (map.labels[i] === id) image.data[4 * i + 3] = 255;
      s.putImageData(image, 0, 0);
      b.clearRect(0, 0, width, height); b.drawImage(small, 0, 0, width, height);
      const alpha = b.getImageData(0, 0, width, height).data;
      for (let i = 0; i < labels.length; i++) if (alpha[4 * i + 3] > best[i]) { best[i] = alpha[4 * i + 3]; labels[i] = id; }
    }
    this.large = { map, times, width, height, labels };
    return this.large;
  }

  #table() {
    const fill = new Uint32Array(256), edge = new Uint32Array(256);
    for (const [id, colour] of Object.entries(this.style.colours)) {
      if (!this.style.visible.has(Number(id))) continue;
      const value = parseInt(colour.slice(1), 16);
      const bgr = this.mode === "overlay" ? ((value & 255) << 16) | (value & 0xff00) | (value >> 16) : 0xffffff;
      const strong = Number(id) === this.style.selected || Number(id) === this.hover;
      const alpha = this.mode === "overlay" ? Math.round(255 * (strong ? FILL + 0.12 : FILL)) : EDGE;
      fill[id] = (alpha << 24 | bgr) >>> 0;
      edge[id] = (EDGE << 24 | bgr) >>> 0;
    }
    return { fill, edge };
  }

  #paintFound() {
    const map = this.proposals;
    if (!map) return;
    const { width, height, labels } = map;
    this.found.width = width; this.found.height = height;
    const g = this.found.getContext("2d");
    const image = g.createImageData(width, height);
    const out = new Uint32Array(image.data.buffer);
    const hot = this.hoverFound ?? 0;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const label = labels[i];
        if (!label) continue;
        const edge = x === 0 || y === 0 || x === width - 1 || y === height - 1
          || labels[i - 1] !== label || labels[i + 1] !== label || labels[i - width] !== label || labels[i + width] !== label;
        if (edge) out[i] = 0xffffffff;
        else out[i] = label === hot ? 0x66ffffff : 0x22ffffff;
      }
    }
    g.putImageData(image, 0, 0);
  }

  #paintPreview() {
    const map = this.preview;
    if (!map) return;
    const { width, height, labels } = map, { selected } = this.style;
    this.ghost.width = width; this.ghost.height = height;
    const g = this.ghost.getContext("2d"), image = g.createImageData(width, height), out = new Uint32Array(image.data.buffer);
    const same = this.masks?.width === width && selected != null;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const before = same && this.masks.labels[i] === selected;
        if (!labels[i]) { if (before) out[i] = 0xa03a3ad2 >>> 0; continue; }
        const edge = x === 0 || y === 0 || x === width - 1 || y === height - 1 || !labels[i - 1] || !labels[i + 1] || !labels[i - width] || !labels[i + width];
        if (edge) out[i] = 0xe0ffffff; else if (!before) out[i] = 0x48ffffff;
      }
    }
    g.putImageData(image, 0, 0);
  }

  // Tell over which pixel a click would be made, if the tool is for clicks.
  #aimAt(at, e) {
    const [x, y] = at.map(Math.floor), clicks = this.tool === "add" || this.tool === "subtract";
    const inside = x >= 0 && y >= 0 && x < this.size[0] && y < this.size[1];
    this.on.aim?.(clicks && inside && !this.proposals && e.pointerType === "mouse" ? { x, y, label: this.#isNegative(0, e) ? 0 : 1 } : null);
  }

  #isNegative(button, e) { return button === 2 || e.altKey || e.shiftKey || this.tool === "subtract"; }

  #centerOn(x, y) {
    this.center = [Math.min(this.size[0], Math.max(0, x)), Math.min(this.size[1], Math.max(0, y))];
  }

  // Highlight a proposal.
  setHot(number) { this.hoverFound = number; this.#paintFound(); this.draw(); }

  #hoverAt(at) {
    const found = at && this.proposals ? this.labelAt(this.proposals, at) : 0;
    if (found !== this.hoverFound) { this.hoverFound = found; this.#paintFound(); this.draw(); }
    const hover = at ? this.labelAt(this.seen, at) : 0;
    if (hover === this.hover) return;
    this.hover = hover;
    this.#paintLayer(); this.draw(); this.on.hover?.(hover);
  }

  #down(e) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(e.pointerId);
    this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
    const at = this.toFrame(e.clientX, e.clientY), { frame } = this;
    if (this.pointers.size === 2) { this.drag = { kind: "pinch" }; return; }
    if (e.button === 1 || (e.button === 0 && this.space)) this.drag = { kind: "pan", last: [e.clientX, e.clientY] };
    else if (this.tool === "box" && e.button === 0) this.drag = { kind: "box", frame, from: at, to: at, screen: [e.clientX, e.clientY] };
    else if ((this.tool === "brush" || this.tool === "erase") && e.button === 0) this.drag = { kind: "stroke", frame, points: [at] };
    else this.drag = { kind: "press", frame, screen: [e.clientX, e.clientY], button: e.button };
    this.draw();
  }

  #move(e) {
    const at = this.toFrame(e.clientX, e.clientY);
    this.cursor = at;
    const before = this.pointers.get(e.pointerId);
    if (before) this.pointers.set(e.pointerId, [e.clientX, e.clientY]);
    if (!this.drag) { this.#hoverAt(at); this.#aimAt(at, e); if (this.tool === "brush" || this.tool === "erase") this.draw(); return; }
    if (this.drag.kind === "pinch" && before) this.#pinch(e, before);
    if (this.drag.kind === "press" && this.drag.button === 0 && this.zoom > 1 && this.#moved(e)) this.drag = { kind: "pan", last: this.drag.screen };
    if (this.drag.kind === "pan") {
      const { scale } = this.place();
      this.center ??= [this.size[0] / 2, this.size[1] / 2];
      this.#centerOn(this.center[0] - (e.clientX - this.drag.last[0]) / scale, this.center[1] - (e.clientY - this.drag.last[1]) / scale);
      this.drag.last = [e.clientX, e.clientY];
    }
    if (this.drag.kind === "box") this.drag.to = at;
    if (this.drag.kind === "stroke") this.drag.points.push(at);
    this.draw();
  }

  #pinch(e, before) {
    const other = [...this.pointers].find(([id]) => id !== e.pointerId)?.[1];
    if (!other) return;
    const gap = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    const now = [e.clientX, e.clientY], { scale } = this.place();
    // The point between the fingers stays there.
    this.center ??= [this.size[0] / 2, this.size[1] / 2];
    this.#centerOn(this.center[0] - (now[0] - before[0]) / 2 / scale, this.center[1] - (now[1] - before[1]) / 2 / scale);
    this.zoomBy(gap(now, other) / Math.max(1, gap(before, other)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  #up(e) {
    this.pointers.delete(e.pointerId);
    const drag = this.drag;
    if (drag?.kind === "pinch" && this.pointers.size) return;
    this.drag = null;
    this.draw();
    if (!drag) return;
    const at = this.toFrame(e.clientX, e.clientY);
    const moved = drag.screen && this.#moved(e, drag);
    if (drag.kind === "press" && !moved) this.#click(at, drag.button, drag.frame, e);
    if (drag.kind === "box" && moved) this.on.box(this.#clip(drag.from, at), drag.frame);
    if (drag.kind === "box" && !moved) this.#click(at, 0, drag.frame, e);
    if (drag.kind === "stroke") this.on.stroke(drag.points, this.radius, this.tool === "erase", drag.frame);
  }

  #moved(e, { screen } = this.drag) {
    return Math.hypot(e.clientX - screen[0], e.clientY - screen[1]) > (SLOP[e.pointerType] ?? SLOP.mouse);
  }

  #click(at, button, frame, e) {
    if (this.#isSecond(e)) return;
    const [x, y] = at.map(Math.floor);
    if (x < 0 || y < 0 || x >= this.size[0] || y >= this.size[1]) return;
    const negative = this.#isNegative(button, e);
    this.on.click({ x, y, frame, negative, pick: e.ctrlKey || e.metaKey, label: this.labelAt(this.seen, at), found: this.labelAt(this.proposals, at) });
  }

  // Whether this is the second click of a double click, which is one action.
  #isSecond(e) {
    const { last } = this;
    this.last = { screen: [e.clientX, e.clientY], button: e.button, ms: e.timeStamp };
    const second = last && last.button === e.button && e.timeStamp - last.ms < DOUBLE_MS && !this.#moved(e, last);
    if (second) this.last = null;
    return second;
  }

  #clip([ax, ay], [bx, by]) {
    const [w, h] = this.size;
    const inside = (v, most) => Math.min(most, Math.max(0, v));
    return [inside(Math.min(ax, bx), w), inside(Math.min(ay, by), h), inside(Math.max(ax, bx), w), inside(Math.max(ay, by), h)];
  }

  #wheel(e) {
    e.preventDefault();
    if (e.ctrlKey || !e.shiftKey) this.zoomBy(Math.exp(-e.deltaY * 0.0016), e.clientX, e.clientY);
  }
}
