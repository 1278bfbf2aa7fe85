// The export dialog: format, objects, edges, preview over checkerboard, progress, download.
const byId = (id) => document.getElementById(id);
const GROUPS = [
  ["For editing", ["prores", "png-rgba", "vp9", "ffv1", "png-rgba-16", "exr"]],
  ["Mattes", ["matte", "matte-lossless", "png-matte", "png-matte-16"]],
  ["For viewing", ["overlay", "green", "background"]],
  ["For training and annotation", ["png", "png-8", "davis", "youtube-vos", "coco", "coco-ytvis", "yolo-seg", "labelme", "cvat", "mots", "mot", "npz", "ome-zarr"]],
];
const SETTLED_MS = 150; // debounce of number inputs
export const TITLES = {
  prores: "ProRes 4444", "png-rgba": "PNG with alpha", vp9: "WebM (VP9)", ffv1: "FFV1", "png-rgba-16": "PNG with alpha, 16 bit", exr: "OpenEXR",
  matte: "Matte video", "matte-lossless": "Matte video, lossless", "png-matte": "PNG mattes", "png-matte-16": "PNG mattes, 16 bit",
  overlay: "Overlay", green: "Green screen", background: "Other background", png: "PNG label maps", "png-8": "PNG label maps, 8 bit",
  davis: "DAVIS", "youtube-vos": "YouTube-VOS", coco: "COCO", "coco-ytvis": "YouTube-VIS", "yolo-seg": "YOLO", labelme: "LabelMe", cvat: "CVAT", mots: "MOTS", mot: "MOTChallenge", npz: "NumPy", "ome-zarr": "OME-Zarr",
};

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB"];
  let i = 0;
  while (n >= 1000 && i < 3) { n /= 1000; i++; }
  return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

export const isExporting = (task) => ["waiting", "running"].includes(task?.status);

export class ExportDialog {
  constructor(formats, on) {
    this.formats = formats;
    this.on = on;
    this.format = "prores";
    this.chosen = new Set();
    this.drawn = 0; // count of previews drawn
    byId("export-go").onclick = () => this.#go();
    byId("export-cancel").onclick = () => on.cancel();
    this.common = { soft: false, feather: 0, grow: 0 }; // edges of the objects without their own
    for (const id of ["soft", "feather", "grow"]) byId(id).oninput = () => this.#edgesChanged();
    byId("edges-of").onchange = () => this.#showEdges();
    byId("background").oninput = () => this.update(this.state);
    byId("export-track").onclick = () => { byId("export-dialog").close(); on.track(); };
    this.#list();
  }

  open(state) {
    this.state = state;
    this.chosen = new Set(state.objects.filter((o) => o.visible).map((o) => o.id));
    byId("export-objects").replaceChildren(...state.objects.map((object) => {
      const chip = document.createElement("button");
      chip.type = "button"; chip.className = "chip"; chip.setAttribute("aria-pressed", String(this.chosen.has(object.id)));
      const dot = document.createElement("i"); dot.style.background = object.colour;
      chip.append(dot, object.name);
      chip.onclick = () => {
        const on = !this.chosen.has(object.id);
        if (on) this.chosen.add(object.id); else this.chosen.delete(object.id);
        chip.setAttribute("aria-pressed", String(on));
        this.preview(); this.update(this.state);
      };
      return chip;
    }));
    byId("edges-of").replaceChildren(new Option("all objects", ""), ...state.objects.map((o) => new Option(o.name, o.id)));
    this.#showEdges();
    byId("export-dialog").showModal();
    this.update(state);
    this.preview();
  }

  // Draw the cutout of the shown frame over checkerboard, with the chosen edges.
  async preview() {
    const edges = this.#edges(), turn = this.turn = (this.turn ?? 0) + 1;
    const own = this.state.objects.some((o) => o.edges.own && this.chosen.has(o.id));
    if (!own && !edges.soft && !edges.feather && !edges.grow) { this.#draw(this.#plain()); return; }
    await new Promise((done) => setTimeout(done, 2 * SETTLED_MS));
    if (turn !== this.turn) return;
    const image = await this.on.cutout({ objects: [...this.chosen], ...edges });
    if (image && turn === this.turn) this.#draw(image);
  }

  // The cutout with hard edges, computed without the server.
  #plain() {
    const shown = this.on.shown();
    if (!shown.image || !shown.masks) return null;
    const { width, height, labels, covered } = shown.masks;
    const mask = document.createElement("canvas");
    mask.width = width; mask.height = height;
    const m = mask.getContext("2d");
    const image = m.createImageData(width, height);
    for (let i = 0; i < labels.length; i++) if (this.chosen.has(labels[i])) image.data[4 * i + 3] = 255;
    for (const part of covered ?? []) {
      if (!this.chosen.has(part.id)) continue;
      for (let i = 0; i < part.mask.length; i++) {
        if (part.mask[i]) image.data[4 * ((part.y + Math.floor(i / part.width)) * width + part.x + i % part.width) + 3] = 255;
      }
    }
    m.putImageData(image, 0, 0);
    m.globalCompositeOperation = "source-in";
    m.drawImage(shown.image, 0, 0, width, height);
    return mask;
  }

  #draw(image) {
    const canvas = byId("preview"), g = canvas.getContext("2d");
    canvas.width = 896; canvas.height = 504;
    this.drawn++;
    if (!image) return;
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    g.imageSmoothingQuality = "high";
    g.drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  }

  // Edges of the chosen format; empty if it does not support them.
  #edges() { return this.formats.find((f) => f.name === this.format)?.edges ? this.common : {}; }

  get #ofObject() { return this.state?.objects.find((o) => String(o.id) === byId("edges-of").value); }

  #showEdges() {
    const object = this.#ofObject, { soft, feather, grow } = object?.edges.own ? object.edges : this.common;
    byId("soft").checked = soft; byId("feather").value = feather; byId("grow").value = grow;
  }

  // Keep what was entered, for all objects or for one; an object with the edges of all has none of its own.
  #edgesChanged() {
    const object = this.#ofObject;
    const edges = { soft: byId("soft").checked, feather: Number(byId("feather").value) || 0, grow: Number(byId("grow").value) || 0 };
    if (!object) this.common = edges;
    else {
      object.edges = { ...edges, own: JSON.stringify(edges) !== JSON.stringify(this.common) };
      clearTimeout(this.settled);
      this.settled = setTimeout(() => this.on.edges(object.id, object.edges), SETTLED_MS);
    }
    this.preview(); this.update(this.state);
  }

  // The choice in the dialog, as a finished export states its own.
  #wanted() {
    const format = this.formats.find((f) => f.name === this.format), edges = this.#edges();
    return {
      format: this.format, objects: [...this.chosen].sort((a, b) => a - b),
      soft: edges.soft ?? false, feather: edges.feather ?? 0, grow: edges.grow ?? 0, background: format?.background ? byId("background").value : null,
    };
  }

  // Say which chosen objects are not tracked since their last correction.
  #warn(state) {
    const stale = state.store ? state.stale.filter((s) => this.chosen.has(s.object)) : [];
    byId("export-stale").hidden = !stale.length;
    const names = [...new Set(stale.map((s) => state.objects.find((o) => o.id === s.object)?.name))];
    const spans = stale.slice(0, 3).map((s) => s.first === s.last ? s.first : `${s.first}–${s.last}`).join(", ");
    byId("export-stale-text").textContent = `${names.slice(0, 3).join(", ")}: frames ${spans}${stale.length > 3 ? " and more" : ""} are not tracked since the last correction; only corrected frames are exported as shown.`;
  }

  update(state) {
    this.state = state;
    const task = state.export;
    this.#warn(state);
    const status = byId("export-status");
    const running = isExporting(task);
    const same = task?.masks === state.masks && JSON.stringify(task.choice) === JSON.stringify(this.#wanted());
    const ready = task?.status === "done" && same;
    status.classList.toggle("bad", task?.status === "failed");
    status.textContent = task?.status === "waiting" ? "Waiting for other exports" : running ? `${TITLES[task.format]}: ${task.total ? Math.floor(100 * task.done / task.total) : 0} %`
      : task?.status === "failed" ? task.message
      : ready ? `${task.file}, ${bytes(task.size)}`
      : task?.status === "done" && task.format === this.format && state.store ? `The last export was of another choice or older masks. Frames ${state.first} to ${state.last}`
      : state.store ? `Frames ${state.first} to ${state.last}` : "Track first; there is nothing to export yet.";
    byId("export-cancel").hidden = !running;
    byId("export-go").hidden = ready;
    byId("export-go").disabled = running || !state.store;
    byId("download").hidden = !ready;
    byId("download").href = this.on.download();
  }

  #list() {
    const known = new Map(this.formats.map((f) => [f.name, f]));
    const grouped = new Set(GROUPS.flatMap(([, names]) => names));
    const rest = this.formats.map((f) => f.name).filter((name) => !grouped.has(name));
    const groups = rest.length ? [...GROUPS, ["Others", rest]] : GROUPS;
    byId("formats").replaceChildren(...groups.flatMap(([title, names]) => {
      const head = document.createElement("h3");
      head.textContent = title;
      return [head, ...names.filter((name) => known.has(name)).map((name) => this.#choice(known.get(name)))];
    }));
    this.#choose(this.format);
  }

  #choice(format) {
    const choice = document.createElement("button");
    choice.type = "button"; choice.className = "format"; choice.dataset.format = format.name;
    choice.setAttribute("role", "radio");
    const title = document.createElement("b"), about = document.createElement("small");
    title.textContent = TITLES[format.name] ?? format.name; about.textContent = format.summary;
    choice.append(title, about);
    choice.onclick = () => this.#choose(format.name);
    return choice;
  }

  #choose(name) {
    this.format = name;
    for (const choice of document.querySelectorAll(".format")) choice.setAttribute("aria-checked", String(choice.dataset.format === name));
    const format = this.formats.find((f) => f.name === name);
    byId("edges").classList.toggle("off", !format?.edges);
    byId("background-label").hidden = !format?.background;
    if (this.state) this.preview();
    if (this.state) this.update({ ...this.state, export: this.state.export?.status === "failed" ? null : this.state.export });
  }

  #go() {
    const format = this.formats.find((f) => f.name === this.format);
    const background = format.background ? { background: byId("background").value } : {};
    this.on.go({ format: this.format, objects: [...this.chosen], ...this.#edges(), ...background });
  }
}
