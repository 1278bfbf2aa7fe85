// The lists on the right: objects, and review items.
import { icon } from "./icons.js";
import { drawStrip } from "./timeline.js";

const byId = (id) => document.getElementById(id);

function button(name, tip, onclick, className = "") {
  const made = document.createElement("button");
  made.type = "button"; made.className = className; made.innerHTML = icon(name);
  made.dataset.tip = tip; made.setAttribute("aria-label", tip);
  made.onclick = (e) => { e.stopPropagation(); onclick(); };
  return made;
}

export class ObjectList {
  constructor(on) { this.on = on; this.rows = new Map(); }

  show(objects, selected, strips, solo) {
    const list = byId("objects");
    byId("object-count").textContent = objects.length || "";
    byId("no-objects").hidden = objects.length > 0;
    const editing = document.activeElement?.matches?.(".object .name") ? document.activeElement.closest(".object") : null;
    const key = (o) => JSON.stringify([o.id, o.name, o.colour, o.visible, o.locked]);
    this.shown = objects.map((o) => o.id);
    const rows = objects.map((object) => {
      const kept = this.rows.get(object.id);
      const row = kept && (kept.dataset.key === key(object) || kept === editing) ? kept : this.#row(object);
      row.dataset.key = key(object);
      row.toggleAttribute("aria-current", object.id === selected);
      row.querySelector(".solo").setAttribute("aria-pressed", String(object.id === solo));
      const strip = row.querySelector(".strip");
      const g = strip.getContext("2d");
      g.clearRect(0, 0, strip.width, strip.height);
      strip.hidden = !strips[object.id];
      drawStrip(g, strips[object.id], object.colour, "#ff6f6b", 0, 0, strip.width, strip.height);
      return [object.id, row];
    });
    this.rows = new Map(rows);
    const wanted = rows.map(([, row]) => row);
    if (wanted.length !== list.children.length || wanted.some((row, i) => row !== list.children[i])) list.replaceChildren(...wanted);
    if (selected !== this.selected) this.rows.get(selected)?.scrollIntoView({ block: "nearest" });
    this.selected = selected;
  }

  #row(object) {
    const row = document.createElement("li");
    row.className = `object${object.visible ? "" : " hidden-object"}`;
    row.dataset.object = object.id;
    row.onclick = () => this.on.select(object.id);
    this.#makeMovable(row, object);
    const swatch = document.createElement("label");
    swatch.className = "swatch"; swatch.style.background = object.colour; swatch.dataset.tip = "Color";
    const colour = document.createElement("input");
    colour.type = "color"; colour.value = object.colour; colour.setAttribute("aria-label", `Color of ${object.name}`);
    colour.onchange = () => this.on.change(object.id, { colour: colour.value });
    swatch.append(colour);
    const name = document.createElement("input");
    name.className = "name"; name.value = object.name; name.maxLength = 60; name.spellcheck = false;
    name.setAttribute("aria-label", "Name");
    name.readOnly = true; name.tabIndex = -1;  // a click selects the object; a double click or F2 renames it
    name.onblur = () => { name.readOnly = true; };
    row.ondblclick = () => this.rename(object.id);
    name.onkeydown = (e) => {
      e.stopPropagation();
      if (e.key === "Escape") { name.value = object.name; name.blur(); }
      if (e.key === "Enter") name.blur();
    };
    name.onchange = () => { if (name.value.trim()) this.on.change(object.id, { name: name.value.trim() }); else name.value = object.name; };
    const acts = document.createElement("span");
    acts.className = "acts";
    acts.append(
      button("solo", "Solo: show this object only", () => this.on.solo(object.id), "solo"),
      button(object.visible ? "eye" : "eyeoff", object.visible ? "Hide" : "Show", () => this.on.change(object.id, { visible: !object.visible }), "on"),
      button(object.locked ? "lock" : "unlock", object.locked ? "Unlock" : "Lock: tracking does not change it", () => this.on.change(object.id, { locked: !object.locked }), object.locked ? "warn" : ""),
      button("trash", "Delete", () => this.on.remove(object.id)),
    );
    const strip = document.createElement("canvas");
    strip.className = "strip"; strip.width = 440; strip.height = 12; strip.dataset.tip = "Confidence over time";
    row.append(swatch, name, acts, strip);
    return row;
  }

  // Objects are dragged up or down, or moved by Alt and an arrow: the upper one is on top where they overlap.
  #makeMovable(row, object) {
    row.draggable = true;
    row.ondragstart = (e) => {
      if (document.activeElement?.matches?.(".object .name")) return e.preventDefault();
      this.dragged = object.id; e.dataTransfer.effectAllowed = "move"; row.classList.add("dragged");
    };
    row.ondragend = () => { this.dragged = null; row.classList.remove("dragged"); this.#mark(null); };
    row.ondragover = (e) => { if (this.dragged) { e.preventDefault(); this.#mark(row, this.#isBelow(row, e)); } };
    row.ondrop = (e) => {
      e.preventDefault();
      if (!this.dragged || this.dragged === object.id) return;
      const left = this.shown.filter((id) => id !== this.dragged);
      left.splice(left.indexOf(object.id) + (this.#isBelow(row, e) ? 1 : 0), 0, this.dragged);
      this.on.order(left);
    };
  }

  rename(id) {
    const name = this.rows.get(id)?.querySelector(".name");
    if (!name) return;
    name.readOnly = false; name.focus(); name.select();
  }

  move(id, by) {
    const order = [...this.shown], at = order.indexOf(id), to = at + by;
    if (at < 0 || to < 0 || to >= order.length) return;
    order.splice(at, 1); order.splice(to, 0, id);
    this.on.order(order);
  }

  #isBelow(row, e) { const box = row.getBoundingClientRect(); return e.clientY > box.top + box.height / 2; }

  #mark(row, below = false) {
    for (const other of byId("objects").children) other.classList.remove("drop-above", "drop-below");
    row?.classList.add(below ? "drop-below" : "drop-above");
  }
}

// The proposals of Find: one button each, which adds it.
export function showFound(found, hover, accept) {
  byId("found").replaceChildren(...found.map(({ number, score, label }) => {
    const made = document.createElement("button"), item = document.createElement("li");
    made.type = "button"; made.className = "issue found"; made.dataset.found = number;
    const name = document.createElement("span"), value = document.createElement("span");
    name.textContent = label || `Proposal ${number}`; value.textContent = score.toFixed(2);
    made.append(document.createElement("i"), name, value);
    made.onpointerenter = made.onfocus = () => hover(number);
    made.onpointerleave = made.onblur = () => hover(0);
    made.onclick = () => accept(number);
    item.append(made);
    return item;
  }));
}

// The classes of what a detector found, each with its count; pressed: listed.
export function showClasses(found, unwanted, toggle) {
  const counts = new Map();
  for (const { label } of found) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  byId("found-classes").hidden = !counts.size;
  byId("found-classes").replaceChildren(...[...counts].sort(([a], [b]) => a.localeCompare(b)).map(([label, count]) => {
    const chip = document.createElement("button");
    chip.type = "button"; chip.className = "chip"; chip.dataset.class = label;
    chip.setAttribute("aria-pressed", String(!unwanted.has(label)));
    chip.textContent = `${label} ${count}`;
    chip.onclick = () => { toggle(label); document.querySelector(`[data-class="${CSS.escape(label)}"]`)?.focus(); };
    return chip;
  }));
}

export function showReview(review, objects, frame, tracked, seek) {
  const known = review.filter((d) => objects.some((o) => o.id === d.object));
  byId("issue-count").textContent = known.length || "";
  byId("no-issues").hidden = known.length > 0;
  byId("no-issues").textContent = tracked ? "No issues were found." : "After tracking, the frames to check are listed here.";
  byId("next-issue").disabled = !known.length;
  byId("issues").replaceChildren(...known.map((issue) => {
    const object = objects.find((o) => o.id === issue.object);
    const row = document.createElement("button");
    row.type = "button"; row.className = `issue${issue.first <= frame && frame <= issue.last ? " here" : ""}`;
    const dot = document.createElement("i"); dot.style.background = object.colour;
    const why = document.createElement("span"); why.className = "why";
    const name = document.createElement("b"); name.textContent = object.name;
    why.append(name, ` ${issue.reason}`); why.title = issue.detail;
    const where = document.createElement("span"); where.textContent = issue.frame;
    row.append(dot, why, where);
    row.onclick = () => seek(issue.frame, issue.object);
    const item = document.createElement("li"); item.append(row);
    return item;
  }));
  return known;
}
