// The timeline: a ruler, a lane per object with its confidence, prompts as diamonds, review items as flags.
const RULER = 24;
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
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    canvas.addEventListener("pointerdown", (e) => this.#down(e));
    canvas.addEventListener("pointermove", (e) => this.#move(e));
    canvas.addEventListener("pointerup", () => this.#up());
    canvas.addEventListener("pointercancel", () => this.#up());
  }

  setState(state) { this.state = this.dragged ? { ...state, ...this.dragged } : state; this.draw(); }
  setTracked(strips, review) { this.strips = strips; this.review = review; this.draw(); }
  setFrame(frame) { this.frame = frame; this.draw(); }

  draw() {
    if (this.scheduled) return;
    this.scheduled = requestAnimationFrame(() => { this.scheduled = null; this.#draw(); });
  }

  xOf(frame) { return this.#left(frame) + 0.5 * this.#step(); }
  frameAt(x) { return Math.min(this.state.end, Math.max(this.state.start, this.state.start + Math.floor((x - GUTTER) / this.#step()))); }
  xOfEnd(end) { return end === "first" ? this.#left(this.state.first) : this.#left(this.state.last + 1); }
  #left(frame) { return GUTTER + (frame - this.state.start) * this.#step(); } // left edge of a frame
  #step() { return (this.canvas.clientWidth - GUTTER - RIGHT) / Math.max(1, this.state.frames); }

  #draw() {
    const state = this.state;
    if (!state) return;
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(`--${name}`).trim();
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.parentElement.clientWidth;
    const height = RULER + Math.max(1, state.objects.length) * LANE + 8;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio); this.canvas.height = Math.round(height * ratio);
    const g = this.canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = '11px system-ui, "DejaVu Sans", sans-serif';
    g.textBaseline = "middle";
    const step = this.#step(), left = GUTTER, right = GUTTER + state.frames * step;
    this.#ruler(g, color, step, right);
    state.objects.forEach((object, row) => this.#lane(g, color, object, RULER + row * LANE, step));
    if (!state.objects.length) {
      g.fillStyle = color("faint"); g.fillText("Objects appear here", left + 8, RULER + LANE / 2);
    }
    g.fillStyle = color("bar"); g.globalAlpha = 0.72;
    const [from, to] = [this.xOfEnd("first"), this.xOfEnd("last")];
    g.fillRect(left, 0, from - left, height); g.fillRect(to, 0, right - to, height);
    g.globalAlpha = 1;
    this.#bracket(g, color(state.first > state.start ? "text" : "faint"), from, height, 1);
    this.#bracket(g, color(state.last < state.end ? "text" : "faint"), to, height, -1);
    for (const issue of this.review.slice(0, 60)) this.#flag(g, this.xOf(issue.frame), issue.severity > 0.6 ? color("bad") : color("warn"));
    const job = state.job;
    if (job && job.frame >= 0 && !["done", "stopped", "failed"].includes(job.status)) {
      g.fillStyle = color("accent"); g.globalAlpha = 0.85;
      g.fillRect(this.xOf(job.frame) - 1, RULER - 4, 2, height);
      g.globalAlpha = 1;
    }
    this.#playhead(g, color("text"), this.xOf(this.frame), height);
  }

  #ruler(g, color, step, right) {
    const state = this.state;
    const seconds = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    const every = seconds.find((s) => s * state.fps * step >= 76) ?? 7200;
    g.strokeStyle = color("line"); g.fillStyle = color("dim"); g.lineWidth = 1;
    const count = Math.floor(state.frames / state.fps / every);
    for (let i = 0; i <= count; i++) {
      const x = Math.round(GUTTER + i * every * state.fps * step) + 0.5;
      g.beginPath(); g.moveTo(x, RULER - 7); g.lineTo(x, RULER - 1); g.stroke();
      if (x < right - 34) g.fillText(clock(i * every, every < 1), x + 5, RULER / 2 + 3);
    }
    g.beginPath(); g.moveTo(0, RULER - 0.5); g.lineTo(this.canvas.clientWidth, RULER - 0.5); g.stroke();
  }

  #lane(g, color, object, y, step) {
    const middle = y + LANE / 2, [top, high] = [y + 5, LANE - 10];
    if (object.id === this.selected) { g.fillStyle = color("over"); g.fillRect(0, y, this.canvas.clientWidth, LANE); }
    g.globalAlpha = object.visible ? 1 : 0.4;
    g.fillStyle = object.colour;
    g.beginPath(); g.arc(16, middle, 4.5, 0, 7); g.fill();
    g.fillStyle = object.id === this.selected ? color("text") : color("dim");
    g.fillText(cut(g, object.name, GUTTER - 40), 28, middle + 0.5);
    const end = GUTTER + this.state.frames * step;
    g.fillStyle = color("over"); g.globalAlpha = 0.7;
    g.fillRect(GUTTER, top, end - GUTTER, high);
    drawStrip(g, this.strips[object.id], object.colour, color("bad"), GUTTER, top, end - GUTTER, high);
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

  // Draw an end of the range, with a tab to drag it by.
  #bracket(g, color, x, height, side) {
    g.strokeStyle = g.fillStyle = color; g.lineWidth = 2; g.beginPath();
    g.moveTo(x, 2); g.lineTo(x, height - 2); g.lineTo(x + 5 * side, height - 2); g.stroke();
    g.beginPath(); g.moveTo(x, 2); g.lineTo(x + 9 * side, 2); g.lineTo(x + 9 * side, 9); g.lineTo(x, 15); g.fill();
  }

  // Find the end of the range at a point, if there is one.
  #endAt(x, y, kind) {
    if (y >= RULER) return null;
    const near = GRIP[kind] ?? GRIP.mouse;
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
    const row = Math.floor((y - RULER) / LANE);
    const object = y > RULER ? this.state.objects[row] : null;
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

export function clock(seconds, fine = true) {
  const whole = Math.floor(seconds), rest = Math.floor((seconds - whole) * 100 + 1e-6);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return `${h ? `${h}:${two(m)}` : m}:${two(s)}${fine ? `.${two(rest)}` : ""}`;
}
