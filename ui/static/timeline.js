// The timeline: a ruler with review items as flags, the range, thumbnails, and a lane per object with its confidence
// and its prompts as diamonds. The wheel zooms, and with Shift it moves.
const RULER = 24;
const RANGE = 14; // height of the row with the ends of the range
const FILM = 34; // height of the thumbnails
const TOP = RULER + RANGE + FILM; // of the lanes
const NEAREST = 12; // frames that are shown at the greatest zoom
const LANE = 22;
const GUTTER = 128;
const RIGHT = 14;
const ABSENT_FILL = "#101217";
const GRIP = { mouse: 7, touch: 18 }; // distance in px at which an end of the range can be grabbed

export class Timeline {
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.state = null;
    this.strips = {};
    this.review = [];
    this.frame = 0;
    this.zoom = 1; // how many times all frames are wider than the timeline
    this.left = 0; // first frame that is shown, from 0
    this.film = new Map(); // thumbnails by frame
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    canvas.addEventListener("pointerdown", (e) => this.#down(e));
    canvas.addEventListener("pointermove", (e) => this.#move(e));
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.#up());
    canvas.addEventListener("wheel", (e) => this.#wheel(e), { passive: false });
  }

  setState(state) { this.state = this.dragged ? { ...state, ...this.dragged } : state; this.draw(); }
  setTracked(strips, review) { this.strips = strips; this.review = review; this.draw(); }
  setFrame(frame) { this.frame = frame; this.#keepInView(frame); this.draw(); }

  // Zoom about a frame, which stays where it is.
  zoomBy(factor, frame = this.frame) {
    const place = this.xOf(frame), most = Math.max(1, this.state.frames / NEAREST);
    this.zoom = Math.min(most, Math.max(1, this.zoom * factor));
    this.#moveTo(frame - this.state.start + 0.5 - (place - GUTTER) / this.#step());
    this.draw();
  }

  #moveTo(left) { this.left = Math.min(Math.max(0, left), this.state.frames * (1 - 1 / this.zoom)); }

  #keepInView(frame) {
    if (!this.state || this.scrubbing) return;
    const at = frame - this.state.start, shown = this.state.frames / this.zoom;
    if (at < this.left) this.#moveTo(at - 0.1 * shown);
    if (at > this.left + shown - 1) this.#moveTo(at - 0.1 * shown);
  }

  #wheel(e) {
    if (!this.state || (!e.ctrlKey && !e.shiftKey && this.zoom === 1 && e.deltaY > 0)) return; // nothing to zoom out of: scroll the lanes
    e.preventDefault();
    const by = e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY) ? e.deltaX || e.deltaY : 0;
    if (by) { this.#moveTo(this.left + by / this.#step()); this.draw(); return; }
    this.zoomBy(Math.exp(-e.deltaY * 0.003), this.frameAt(this.#at(e)[0]));
  }

  draw() {
    if (this.scheduled) return;
    this.scheduled = requestAnimationFrame(() => { this.scheduled = null; this.#draw(); });
  }

  xOf(frame) { return this.#left(frame) + 0.5 * this.#step(); }
  frameAt(x) { return Math.min(this.state.end, Math.max(this.state.start, this.state.start + Math.floor(this.left + (x - GUTTER) / this.#step()))); }
  yOfRange() { return RULER + RANGE / 2; }
  xOfEnd(end) { return end === "first" ? this.#left(this.state.first) : this.#left(this.state.last + 1); }
  #left(frame) { return GUTTER + (frame - this.state.start - this.left) * this.#step(); } // left edge of a frame
  #width() { return this.canvas.clientWidth - GUTTER - RIGHT; }
  #step() { return this.zoom * this.#width() / Math.max(1, this.state.frames); }

  #draw() {
    const state = this.state;
    if (!state) return;
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(`--${name}`).trim();
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.parentElement.clientWidth;
    const height = TOP + Math.max(1, state.objects.length) * LANE + 8;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio); this.canvas.height = Math.round(height * ratio);
    const g = this.canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = '11px system-ui, "DejaVu Sans", sans-serif';
    g.textBaseline = "middle";
    const step = this.#step(), left = GUTTER, right = GUTTER + this.#width();
    state.objects.forEach((object, row) => this.#label(g, color, object, TOP + row * LANE));
    if (!state.objects.length) {
      g.fillStyle = color("dim"); g.fillText("Objects appear here", left + 8, TOP + LANE / 2);
    }
    g.save(); g.beginPath(); g.rect(GUTTER - 8, 0, this.#width() + RIGHT + 8, height); g.clip();
    this.#ruler(g, color, step, right);
    this.#film(g, color, step);
    state.objects.forEach((object, row) => this.#lane(g, color, object, TOP + row * LANE, step));
    g.fillStyle = color("bar"); g.globalAlpha = 0.72;
    const [from, to] = [this.xOfEnd("first"), this.xOfEnd("last")];
    g.fillRect(left, RULER + RANGE, Math.max(0, from - left), height); g.fillRect(to, RULER + RANGE, Math.max(0, right - to), height);
    g.globalAlpha = 1;
    this.#range(g, color, from, to, height);
    for (const issue of this.review.slice(0, 60)) this.#flag(g, this.xOf(issue.frame), issue.severity > 0.6 ? color("bad") : color("warn"));
    const job = state.job;
    if (job && job.frame >= 0 && !["done", "stopped", "failed"].includes(job.status)) {
      g.fillStyle = color("accent"); g.globalAlpha = 0.85;
      g.fillRect(this.xOf(job.frame) - 1, RULER + RANGE, 2, height);
      g.globalAlpha = 1;
    }
    this.#playhead(g, color("text"), this.xOf(this.frame), height);
    g.restore();
  }

  // Thumbnails of the frames that are shown, as far as they are there; the page fetches the others.
  #film(g, color, step) {
    const { state } = this, y = RULER + RANGE, high = FILM - 3, wide = Math.round(high * state.width / state.height);
    const count = Math.max(1, Math.ceil(this.#width() / wide)), wanted = [];
    for (let i = 0; i < count; i++) {
      const x = GUTTER + i * wide, frame = this.frameAt(x + wide / 2);
      if (x > GUTTER + state.frames * step) break;
      const image = this.film.get(frame);
      const part = Math.min(1, (GUTTER + this.#width() - x) / (wide - 1));
      if (image) g.drawImage(image, 0, 0, part * image.width, image.height, x, y, part * (wide - 1), high);
      else { g.fillStyle = color("over"); g.fillRect(x, y, part * (wide - 1), high); wanted.push(frame); }
    }
    this.on.film?.(wanted);
  }

  #ruler(g, color, step, right) {
    const state = this.state;
    const seconds = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    const every = seconds.find((s) => s * state.fps * step >= 92) ?? 7200;
    g.strokeStyle = color("line"); g.fillStyle = color("dim"); g.lineWidth = 1;
    const count = Math.min(Math.floor(state.frames / state.fps / every), Math.floor((this.left + this.#width() / step) / state.fps / every));
    for (let i = Math.floor(this.left / state.fps / every); i <= count; i++) {
      const x = Math.round(GUTTER + (i * every * state.fps - this.left) * step) + 0.5;
      g.beginPath(); g.moveTo(x, RULER - 7); g.lineTo(x, RULER - 1); g.stroke();
      if (x < right - 34) g.fillText(clock(i * every, every < 1), x + 5, RULER / 2 + 3);
    }
    g.beginPath(); g.moveTo(0, RULER - 0.5); g.lineTo(this.canvas.clientWidth, RULER - 0.5); g.stroke();
  }

  #label(g, color, object, y) {
    const middle = y + LANE / 2;
    if (object.id === this.selected) { g.fillStyle = color("over"); g.fillRect(0, y, this.canvas.clientWidth, LANE); }
    g.globalAlpha = object.visible ? 1 : 0.4;
    g.fillStyle = object.colour;
    g.beginPath(); g.arc(16, middle, 4.5, 0, 7); g.fill();
    g.fillStyle = object.id === this.selected ? color("text") : color("dim");
    g.fillText(cut(g, object.name, GUTTER - 40), 28, middle + 0.5);
    g.globalAlpha = 1;
  }

  #lane(g, color, object, y, step) {
    const middle = y + LANE / 2, [top, high] = [y + 5, LANE - 10];
    const start = this.#left(this.state.start), width = this.state.frames * step;
    g.fillStyle = color("over"); g.globalAlpha = object.visible ? 0.7 : 0.3;
    g.fillRect(start, top, width, high);
    drawStrip(g, this.strips[object.id], object.colour, color("bad"), start, top, width, high);
    g.globalAlpha = 1;
    for (const stale of this.state.stale) if (stale.object === object.id) hatch(g, color("text"), color("bar"), this.#left(stale.first), top, (stale.last - stale.first + 1) * step, high);
    this.#progress(g, object, top, high, step);
    g.globalAlpha = 1;
    for (const anchor of object.anchors) diamond(g, this.xOf(anchor.frame), middle, anchor.via === "gone" ? ABSENT_FILL : object.colour);
  }

  // Draw the frames of an object that the running job has finished.
  #progress(g, object, y, height, step) {
    const { job } = this.state;
    if (!job?.pass || ["done", "stopped", "failed"].includes(job.status) || !job.pass.objects.includes(object.id)) return;
    const [from, to] = job.pass.direction === "forward" ? [job.pass.first, job.frame] : [job.frame, job.pass.last];
    g.fillStyle = object.colour; g.globalAlpha = 0.7;
    g.fillRect(this.#left(from), y, (to - from + 1) * step, height);
  }

  // Draw the range in its row, with tabs at its ends to drag them by.
  #range(g, color, from, to, height) {
    const { state } = this, [y, high] = [RULER + 2, RANGE - 4];
    g.fillStyle = color("over"); g.fillRect(from, y + high / 2 - 1, to - from, 3);
    for (const [x, side, set] of [[from, 1, state.first > state.start], [to, -1, state.last < state.end]]) {
      g.fillStyle = color(set ? "text" : "dim");
      g.fillRect(Math.min(x, x + 8 * side), y, 8, high);
      if (set) { g.globalAlpha = 0.6; g.fillRect(x - 0.5, y, 1, height); g.globalAlpha = 1; }
    }
  }

  // Find the end of the range at a point, if there is one.
  #endAt(x, y, kind) {
    const near = GRIP[kind] ?? GRIP.mouse, high = kind === "touch" ? 8 : 0;
    if (y < RULER - high || y >= RULER + RANGE + high) return null;
    const [from, to] = [x - this.xOfEnd("first"), x - this.xOfEnd("last")];
    if (to >= -near - 2 && to <= near && Math.abs(to) <= Math.abs(from)) return "last";
    return from <= near + 2 && from >= -near ? "first" : null;
  }

  #flag(g, x, color) {
    g.fillStyle = color; g.beginPath();
    g.moveTo(x - 3.5, 1); g.lineTo(x + 3.5, 1); g.lineTo(x, 7.5); g.fill();
  }

  #playhead(g, color, x, height) {
    g.fillStyle = color;
    g.beginPath(); g.moveTo(x - 5, RULER - 11); g.lineTo(x + 5, RULER - 11); g.lineTo(x + 5, RULER - 6); g.lineTo(x, RULER - 1); g.lineTo(x - 5, RULER - 6); g.fill();
    g.fillRect(x - 0.75, RULER - 6, 1.5, height);
  }

  #at(e) { const box = this.canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; }

  #down(e) {
    const [x, y] = this.#at(e);
    const row = Math.floor((y - TOP) / LANE);
    const object = y > TOP ? this.state.objects[row] : null;
    if (object) this.on.select(object.id);
    const end = this.#endAt(x, y, e.pointerType);
    if (x < GUTTER - 4 && !end) return;
    this.canvas.setPointerCapture(e.pointerId);
    if (end) { this.end = end; return; }
    this.scrubbing = true;
    const anchor = object?.anchors.find((a) => Math.abs(this.xOf(a.frame) - x) < 6);
    const issue = y < 12 ? this.review.find((d) => Math.abs(this.xOf(d.frame) - x) < 5) : null;
    this.on.seek(anchor?.frame ?? issue?.frame ?? this.frameAt(x));
  }

  #move(e) {
    const [x, y] = this.#at(e);
    if (this.scrubbing) this.on.seek(this.frameAt(x));
    if (this.end) this.#dragEnd(this.frameAt(x));
    this.canvas.style.cursor = this.state && this.#endAt(x, y, e.pointerType) ? "col-resize" : x >= GUTTER && y < RULER ? "ew-resize" : "default";
  }

  // Drag one end of the range and show the frame under the pointer; the other end stays.
  #dragEnd(frame) {
    const { first, last } = this.state;
    this.dragged = this.end === "first" ? { first: Math.min(frame, last) } : { last: Math.max(frame, first) };
    this.setState(this.state);
    this.on.seek(Object.values(this.dragged)[0]);
  }

  #up() {
    this.scrubbing = false;
    const { dragged } = this;
    this.end = this.dragged = null;
    if (dragged) this.on.range(dragged);
  }
}

export function drawStrip(g, strip, color, lost, x, y, width, height) {
  if (!strip) return;
  const step = width / strip.length;
  for (let i = 0; i < strip.length; ) {
    let j = i + 1;
    while (j < strip.length && strip[j] === strip[i]) j++;
    const value = strip[i];
    if (value >= 0) {
      g.fillStyle = color; g.globalAlpha = 0.25 + 0.7 * Math.max(0, (value - 40) / 60);
      g.fillRect(x + i * step, y, (j - i) * step + 0.4, height);
    } else if (value === -2) {
      g.fillStyle = lost; g.globalAlpha = 0.6;
      g.fillRect(x + i * step, y + height / 2 - 1, (j - i) * step + 0.4, 2);
    }
    i = j;
  }
  g.globalAlpha = 1;
}

function hatch(g, color, ground, x, y, width, height) {
  g.save(); g.beginPath(); g.rect(x, y, width, height); g.clip();
  g.fillStyle = ground; g.globalAlpha = 0.5; g.fill(); // dims the stale strip below
  g.strokeStyle = color; g.globalAlpha = 0.34; g.lineWidth = 1.2; g.beginPath();
  for (let i = x - height; i < x + width; i += 6) { g.moveTo(i, y + height); g.lineTo(i + height, y); }
  g.stroke(); g.restore();
}

function diamond(g, x, y, fill) {
  g.beginPath(); g.moveTo(x, y - 6); g.lineTo(x + 6, y); g.lineTo(x, y + 6); g.lineTo(x - 6, y); g.closePath();
  g.fillStyle = fill; g.fill(); g.lineWidth = 1.5; g.strokeStyle = "#fff"; g.stroke();
}

function cut(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  while (text && g.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}

// Frame that a text names: a number, a timecode HH:MM:SS:FF, or a time (3.5s, 1:02); null if it is none.
export function frameOf(text, fps) {
  const plain = text.trim();
  if (/^\d+$/.test(plain)) return Number(plain);
  const seconds = plain.match(/^([\d.]+)s$/);
  if (seconds) return Math.ceil(Number(seconds[1]) * fps - 1e-6);
  const parts = plain.match(/^(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)(?:[:;](\d+))?$/);
  if (!parts) return null;
  const [, first, second, third, frames] = parts;
  if (frames !== undefined && first === undefined) return null;
  const total = 3600 * Number(first ?? 0) + 60 * Number(second) + Number(third);
  return frames === undefined ? Math.ceil(total * fps - 1e-6) : Math.round(total * Math.round(fps)) + Number(frames);
}

export function clock(seconds, fine = true) {
  const whole = Math.floor(seconds), rest = Math.floor((seconds - whole) * 100 + 1e-6);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return `${h ? `${h}:${two(m)}` : m}:${two(s)}${fine ? `.${two(rest)}` : ""}`;
}
