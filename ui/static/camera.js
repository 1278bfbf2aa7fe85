// The camera page: live image with masks, clicks on objects, latency, recording.
import { about, CameraApi } from "./api.js";
import { fillIcons, icon } from "./icons.js";
import { startTheme, startTips, toast } from "./notices.js";
import { View } from "./view.js";

const UNANSWERED = 3, SLOW_MS = 250;
const byId = (id) => document.getElementById(id);
const SENT_SIDE = 960, SENT_QUALITY = 0.85;
const OVER = ["ended", "failed"];
const HINTS = { add: "Click on the object. Right click on what does not belong to it.", subtract: "Click on what does not belong to the object.", box: "Drag a box around an object." };

class Camera {
  constructor(api, title, colours) {
    this.api = api; this.colours = colours; this.selected = null; this.objects = []; this.after = -1; this.shown = 0;
    this.view = new View(byId("view"), {
      click: ({ x, y, frame, negative, pick, label }) => (pick && label ? this.select(label) : this.prompt({ do: "click", frame, x, y, label: negative ? 0 : 1 })),
      box: (xyxy) => this.prompt({ do: "box", frame: this.after, xyxy }),
    });
    byId("start").hidden = true; byId("editor").hidden = false;
    byId("title").textContent = title; byId("recording").href = api.recording;
    this.#wire();
    this.setTool("add"); this.setMode("overlay");
    this.#watch();
  }

  async #watch() {
    for (;;) {
      let status;
      try { status = await this.api.next(this.after); } catch (error) {
        toast(error.message);
        if (!error.offline) return this.#over();
        await new Promise((done) => setTimeout(done, 2000));
        continue;
      }
      this.#figures(status.about);
      if (status.image) this.#show(status);
      if (OVER.includes(status.about.status)) {
        toast(status.about.message || "The camera has ended.", status.about.status === "failed" ? "bad" : "note");
        return this.#over();
      }
    }
  }

  #show({ about, image, masks }) {
    if (this.size !== about.size.join()) { this.size = about.size.join(); this.view.setSize(...about.size); }
    this.after = about.frame; this.unanswered = 0;
    this.view.image?.close();
    this.#list(about.objects);
    this.view.show(about.frame, image, masks, []);
    if (about.stamp != null) this.roundTrip = Math.round(performance.now() - about.stamp);
    byId("facts").textContent = `${about.size[0]} × ${about.size[1]}`;
    this.shown++;
  }

  #figures(status) {
    this.status = status;
    byId("fps").textContent = status.fps || "–";
    byId("latency").textContent = status.latency_ms == null ? "–" : `${status.latency_ms} / ${status.worst_ms} ms${this.roundTrip ? `, ${this.roundTrip} ms to the screen` : ""}`;
    byId("dropped").textContent = status.dropped;
    byId("governor").textContent = `${status.governor.level} / ${status.governor.levels}`;
    byId("governor-tip").dataset.tip = `Steps taken to stay within the deadline. Last: ${status.governor.reason}`;
    byId("trouble").textContent = status.trouble && `The camera is disconnected (${status.trouble}); reconnecting.`;
    byId("record-label").textContent = status.recording ? `Finish (${status.recorded})` : "Record";
    byId("record").classList.toggle("recording", status.recording);
    byId("recording").hidden = status.recording || !status.store;
  }

  // Update the list of objects; clicked objects stay in it while they are not visible.
  #list(found) {
    const key = JSON.stringify([found.map(([id, , state]) => [id, state]), this.selected]);
    if (key === this.listed) return;
    this.listed = key;
    const states = new Map(found.map(([id, , state]) => [id, state]));
    for (const [id] of found) if (!this.objects.includes(id) && !this.removed?.has(id)) this.objects.push(id);
    byId("no-objects").hidden = this.objects.length > 0;
    byId("objects").replaceChildren(...this.objects.map((id) => this.#row(id, states.get(id))));
    this.#style();
  }

  #row(id, state) {
    const row = document.createElement("li");
    row.className = "object"; row.dataset.object = id; row.toggleAttribute("aria-current", id === this.selected);
    row.onclick = () => this.select(id);
    const swatch = document.createElement("span"), name = document.createElement("span"), remove = document.createElement("button");
    swatch.className = "swatch"; swatch.style.background = this.colours[id - 1];
    name.textContent = `Object ${id}${state === "tracked" || state === "reentered" ? "" : " (not visible)"}`;
    remove.innerHTML = icon("trash"); remove.setAttribute("aria-label", `Remove object ${id}`);
    remove.onclick = (e) => { e.stopPropagation(); this.remove(id); };
    const acts = document.createElement("span"); acts.className = "acts"; acts.append(remove);
    row.append(swatch, name, acts);
    return row;
  }

  #style() {
    this.view.setStyle({ colours: Object.fromEntries(this.objects.map((id) => [id, this.colours[id - 1]])), visible: new Set(this.objects), selected: this.selected });
  }

  #over() {
    this.sending = false;
    byId("own-video").srcObject?.getTracks().forEach((track) => track.stop());
    byId("record").disabled = true;
    byId("stop").textContent = "Restart"; byId("stop").onclick = () => location.reload();
  }

  async ask(what) {
    try {
      const status = await this.api.act(what);
      this.#figures(status);
      return status;
    } catch (error) { toast(error.message); return null; }
  }

  // Send a click or box on the shown frame, after the previous one was answered: it may refine the same object.
  prompt(what) {
    this.pending = (this.pending ?? Promise.resolve()).then(async () => {
      const choice = this.choice, status = await this.ask({ ...what, object: this.selected });
      if (status && status.object == null) toast("No frame arrives; this takes effect when one does.", "note");
      else if (status && choice === this.choice) this.select(status.object);
    });
    return this.pending;
  }

  async remove(id) {
    (this.removed ??= new Set()).add(id);
    this.objects = this.objects.filter((other) => other !== id);
    if (this.selected === id) this.select(null);
    this.listed = null;
    await this.ask({ do: "remove", object: id });
  }

  // choice: a new object whenever the selection changes.
  select(id) { this.selected = id; this.choice = {}; this.listed = null; this.#style(); }
  newObject() { this.select(null); toast("The next click adds a new object.", "note"); }
  record() { return this.ask({ do: this.status?.recording ? "finish" : "record" }); }
  setTool(tool) { this.view.setTool(tool); press("tool", tool); byId("hint").textContent = HINTS[tool]; setTimeout(() => { byId("hint").textContent = ""; }, 5000); }
  setMode(mode) { this.view.setMode(mode); press("mode", mode); }

  // Send images of the browser's camera one at a time, always the newest one.
  async send(video) {
    const canvas = document.createElement("canvas"), g = canvas.getContext("2d");
    this.sending = true; this.unanswered = 0;
    while (this.sending) {
      if (this.unanswered >= UNANSWERED) await new Promise((done) => setTimeout(done, SLOW_MS));  // they are dropped
      await new Promise((done) => video.requestVideoFrameCallback(done));
      const scale = Math.min(1, SENT_SIDE / Math.max(video.videoWidth, video.videoHeight)), stamp = performance.now();
      canvas.width = Math.round(video.videoWidth * scale); canvas.height = Math.round(video.videoHeight * scale);
      g.drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", SENT_QUALITY));
      this.unanswered++;
      try { await this.api.image(blob, stamp); } catch (error) { if (!error.offline) return; }
    }
  }

  #wire() {
    byId("record").onclick = () => this.record(); byId("stop").onclick = () => this.ask({ do: "stop" }); byId("new-object").onclick = () => this.newObject();
    for (const b of document.querySelectorAll("[data-tool]")) b.onclick = () => this.setTool(b.dataset.tool);
    for (const b of document.querySelectorAll("[data-mode]")) b.onclick = () => this.setMode(b.dataset.mode);
    const keys = { a: () => this.setTool("add"), s: () => this.setTool("subtract"), b: () => this.setTool("box"), n: () => this.newObject(), r: () => this.record(), 1: () => this.setMode("overlay"), 2: () => this.setMode("cutout"), 3: () => this.setMode("matte") };
    addEventListener("keydown", (e) => { if (!e.ctrlKey && !e.metaKey && keys[e.key.toLowerCase()]) keys[e.key.toLowerCase()](); });
    addEventListener("pagehide", () => navigator.sendBeacon(new URL(`api/${this.api.path}/do`, document.baseURI), new Blob(['{"do":"stop"}'], { type: "application/json" })));
  }
}

function press(kind, value) {
  for (const b of document.querySelectorAll(`[data-${kind}]`)) b.setAttribute("aria-pressed", String(b.dataset[kind] === value));
}

const REFUSED = { NotAllowedError: "The browser may not use the camera; allow it beside the address of this page.", NotFoundError: "This device has no camera.", NotReadableError: "Another program uses the camera." };

async function ownCamera() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("The browser allows its camera on secure pages only: open this one by https, or at localhost.");
  try { return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } }); } catch (error) {
    throw new Error(REFUSED[error.name] ?? `The camera cannot be used: ${error.message}.`);
  }
}

async function begin(address, colours) {
  byId("opening").hidden = false;
  try {
    const stream = address ? null : await ownCamera();
    const camera = new Camera(await CameraApi.begin(address), address ? address.split("/").pop() || address : "This device's camera", colours);
    window.camera = camera;
    if (!stream) return;
    const video = byId("own-video");
    video.srcObject = stream;
    await video.play();
    camera.send(video);
  } catch (error) { toast(error.message); } finally { byId("opening").hidden = true; }
}

async function main() {
  fillIcons(); startTips(); startTheme(() => window.camera?.view.draw());
  try {
    const facts = await about();
    byId("own").onclick = () => begin(null, facts.colours);
    byId("address-form").hidden = !facts.roots.length;
    byId("address-form").onsubmit = (e) => { e.preventDefault(); if (byId("address").value.trim()) begin(byId("address").value.trim(), facts.colours); };
  } catch (error) { toast(error.message); }
}

main();
