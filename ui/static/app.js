// The editing page: one session, its last state from the server, and the actions on it.
import { about, SessionApi } from "./api.js";
import { ExportDialog, isExporting } from "./exporting.js";
import { Frames } from "./frames.js";
import { fillIcons, setIcon } from "./icons.js";
import { isRunning, showJob } from "./job.js";
import { listenForKeys } from "./keys.js";
import { askToNotify, fillShortcuts, notify, showOffline, startTheme, startTips, toast } from "./notices.js";
import { ObjectList, showClasses, showFound, showReview } from "./panel.js";
import { Playback } from "./playback.js";
import { showStart } from "./start.js";
import { clock, frameOf, Timeline } from "./timeline.js";
import { forget, remember } from "./videos.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const PREVIEW_MS = 60, PREVIEW_TRIES = 40; // the server says nothing while it encodes the frame
const POLL_BUSY_MS = 280, POLL_IDLE_MS = 4000;
const SLOW_MS = 1500, DECODING = "The video is decoded up to this frame once, to be sure that it is the right one.";
const HINTS = {
  add: matchMedia("(pointer: coarse)").matches ? "Tap on the object; then with − on what does not belong to it." : "Click on the object. Right click on what does not belong to it.", subtract: "Click on what does not belong to the object.",
  box: "Drag a box around an object.", brush: "Paint what belongs to the object.", erase: "Erase what does not belong to it.",
};

class Page {
  constructor(token, facts) {
    this.token = token; this.facts = facts;
    this.api = new SessionApi(token);
    this.frame = 0; this.selected = null; this.state = null; this.strips = {}; this.review = [];
    this.busy = 0; this.queue = Promise.resolve(); this.follow = true; this.solo = null; this.unwanted = new Set();
    this.view = new View(byId("view"), {
      click: (at) => this.click(at),
      aim: (at) => this.#preview(at),
      box: (xyxy, frame) => this.prompt({ do: "box", frame, xyxy }),
      stroke: (points, radius, erase, frame) => this.prompt({ do: "brush", frame, points, radius, erase }),
    });
    this.timeline = new Timeline(byId("timeline"), {
      seek: (frame) => this.seek(frame), select: (id) => this.select(id), range: (what) => this.range(what), film: (frames) => this.#fetchFilm(frames),
    });
    this.playback = new Playback({
      state: () => this.state, frames: () => this.frames, frame: () => this.frame,
      show: (frame, image, masks) => { this.#setFrame(frame); this.#display(frame, image, masks); },
      ended: () => { setIcon(byId("play"), "play"); this.refresh(); },
    });
    this.list = new ObjectList({
      select: (id) => this.select(id),
      change: (object, what) => this.entry({ type: "changed", object, ...what }),
      remove: (object) => this.entry({ type: "deleted", object }),
      order: (objects) => this.entry({ type: "order", objects }),
      solo: (object) => this.setSolo(object),
    });
    this.exports = new ExportDialog(facts.formats, {
      shown: () => this.view, cutout: (wanted) => this.try(() => this.api.cutout(this.frame, wanted)), download: () => this.api.download,
      go: (wanted) => this.try(async () => this.take(await this.api.export(wanted))),
      cancel: () => this.try(() => this.api.cancelExport()),
      track: () => byId("track").click(),
      edges: (object, edges) => this.entry({ type: "changed", object, edges }),
    });
    this.#wire();
  }

  async begin() {
    const state = await this.api.state();
    remember(this.token, state.title);
    document.title = `${state.title} – maskstream`;
    byId("editor").hidden = false;
    byId("title").textContent = state.title;
    this.frames = new Frames(this.api, Math.min(1920, 2 ** Math.ceil(Math.log2(Math.max(screen.width, screen.height) * devicePixelRatio))), state);
    this.view.setSize(state.width, state.height);
    const linked = Number(new URLSearchParams(location.hash.slice(1)).get("frame"));
    this.frame = Math.min(state.end, Math.max(state.start, linked || 0));
    this.select(state.objects[0]?.id ?? null, false);
    this.setTool("add"); this.setMode("overlay");
    this.take(state);
    await this.seek(this.frame);
    this.#poll();
    if (this.facts.propose && !state.objects.length && !state.can_redo) this.find(true);
  }

  // State

  take(state) {
    const before = this.state;
    if (before && state.revision < before.revision && state.store === before.store) return;
    this.state = state;
    if (before?.frames !== state.frames || before.count_known !== state.count_known) this.#showLength(before, state);
    if (!state.objects.some((o) => o.id === this.selected)) this.selected = this.fresh ? null : state.objects.at(-1)?.id ?? null;
    const job = state.job, running = isRunning(job);
    this.frames.setVersion(`${state.revision}|${running ? "live" : ""}`);
    if (isRunning(before?.job) && job && !running) this.#ended(job);
    if (!before || before.store !== state.store) this.#loadTimeline();
    this.render();
    if (running) this.#follow(before?.job, job);
    else if (!before || before.revision !== state.revision || before.job?.status !== job?.status) this.refresh();
    if (byId("export-dialog").open) this.exports.update(state);
  }

  // Show how long the video is; an estimate until the server has decoded its last frame.
  #showLength(before, state) {
    const about = state.count_known ? "" : "~";
    byId("facts").textContent = `${state.width} × ${state.height} · ${Number(state.fps.toFixed(2))} fps · ${about}${clock(state.frames / state.fps, false)}`;
    byId("frame-count").textContent = `/ ${about}${state.end}`;
    if (before && before.frames !== state.frames) this.#loadTimeline();
    if (before && this.frame > state.end) this.seek(state.end);
  }

  render() {
    const { state, selected } = this;
    byId("undo").disabled = !state.can_undo; byId("redo").disabled = !state.can_redo;
    this.view.setStyle({
      colours: Object.fromEntries(state.objects.map((o) => [o.id, o.colour])),
      visible: new Set(this.masksHidden ? [] : state.objects.filter((o) => this.solo === null ? o.visible : o.id === this.solo).map((o) => o.id)), selected,
    });
    this.timeline.selected = selected;
    this.timeline.setState({ ...state, objects: this.ordered() });
    if (!state.objects.some((o) => o.id === this.solo)) this.solo = null;
    this.list.show(this.ordered(), selected, this.strips, this.solo);
    this.reviewShown = showReview(this.review, state.objects, this.frame, state.store, (frame, object) => { this.select(object); this.seek(frame); });
    this.timeline.setTracked(this.strips, this.reviewShown);
    byId("model").value = state.model;
    showJob(state); this.#renderFrame();
  }

  // Objects as they are listed: in the person's order, new ones first, or by id.
  ordered() {
    const { objects, order } = this.state;
    return order.length ? [...objects].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id)) : objects;
  }

  #renderFrame() {
    const { state, frame } = this;
    byId("time").textContent = clock((frame - state.start) / state.fps);
    if (document.activeElement !== byId("frame")) byId("frame").value = frame;
    byId("previous-issue").disabled = byId("next-issue").disabled = !this.reviewShown?.length;
    const here = state.objects.flatMap((o) => o.visible ? o.anchors.filter((a) => a.frame === frame).map((a) => ({ ...a, colour: o.colour, selected: o.id === this.selected })) : []);
    this.view.prompts = here; this.view.draw();
    const mine = here.find((a) => a.selected);
    byId("candidates").hidden = !mine || mine.candidates < 2;
    byId("gone-here").hidden = mine?.via !== "gone";
    if (mine) byId("candidates-text").textContent = `Mask ${mine.chosen + 1} of ${mine.candidates}`;
    byId("brush-size").hidden = !["brush", "erase"].includes(this.tool) || !byId("candidates").hidden;
  }

  // Actions

  async try(what) {
    this.busy++; byId("busy").hidden = false; this.view.setPreview(null);
    try { return await what(); } catch (error) { this.fail(error); return null; } finally { if (!--this.busy) byId("busy").hidden = true; }
  }

  fail(error) {
    if (error.name === "AbortError") return;
    if (error.status === 404 && /session/.test(error.message)) { forget(this.token); }
    if (error.offline) return this.#setOffline(true);  // #poll detects when it is back, and reloads
    toast(error.message);
  }

  #setOffline(offline) { this.offline = offline; showOffline(offline); }

  // Send actions one after the other, so that their order is kept.
  act(what) {
    this.queue = this.queue.then(() => this.try(async () => {
      const startMs = performance.now();
      const state = await this.api.act(what);
      if (state.object != null && (what.created === undefined || what.created === this.created)) this.#choose(state.object);
      this.take(state);
      await this.refresh();
      await new Promise(requestAnimationFrame); // until it is drawn
      this.lastActMs = performance.now() - startMs;
      return state;
    }));
    return this.queue;
  }

  // Prompt the selected object, or a new one, on the frame that was shown. What it is about is settled now, not when it is sent.
  prompt(what) {
    this.pause();
    if (what.frame !== this.frame) this.seek(what.frame);  // the view has moved on
    else this.setFollow(false);
    const { selected } = this, name = this.state.objects.find((o) => o.id === selected)?.name;
    const done = this.act({ ...what, object: selected, ...(selected == null ? { created: this.created } : {}) });
    if (what.do === "box" && selected != null) done.then((state) => { if (state && state.object !== selected) toast(`A new object: the box lies beside “${name}”.`, "note"); });
    return done;
  }

  // Select what was prompted, unless something else has been selected meanwhile.
  #choose(id) { this.selected = id; this.fresh = false; }

  entry(entry) { return this.act({ do: "entry", entry }); }

  click({ x, y, frame, negative, pick, label, found }) {
    this.pause();
    if (pick && label) return this.select(label);
    if (!negative && found && this.view.proposals) {
      return this.accept(found, frame);
    }
    if (negative && this.selected == null) return toast("Click on the object first, then on what does not belong to it.", "note");
    return this.prompt({ do: "click", frame, x, y, label: negative ? 0 : 1 });
  }

  // Show what a click under the pointer would do: one request at a time, none while anything else goes on.
  async #preview(at) {
    this.aimed = at;
    if (!at || this.running || this.playing || this.busy) return this.view.setPreview(null);
    if (this.previewing) return;
    this.previewing = true;
    for (let tries = 0; this.aimed && tries < PREVIEW_TRIES; tries++) {
      const { frame } = this.view, wanted = this.aimed;
      let found = null;
      const asked = wanted.label || this.selected != null;
      if (asked) {
        try { found = await this.api.preview(frame, wanted, this.selected, this.frames.side); } catch { found = null; }
      }
      if (!this.aimed || this.busy || frame !== this.view.frame) { this.view.setPreview(null); break; }
      this.view.setPreview(found);
      if (found) tries = 0;
      if (this.aimed === wanted && (found || !asked)) break;
      await new Promise((done) => setTimeout(done, PREVIEW_MS));
    }
    this.previewing = false;
  }

  cleanUp() {
    if (this.selected == null) return toast("Select an object first.", "note");
    byId("cleanup").hidden = !byId("cleanup").hidden;
  }
  applyCleanup() {
    const value = (id) => Number(byId(id).value);
    this.pause();
    return this.act({ do: "cleanup", frame: this.view.frame, object: this.selected, holes: value("holes"), specks: value("specks"), smooth: value("smooth") });
  }

  select(id, render = true) {
    this.selected = id; this.fresh = id == null;
    this.created = `${Date.now()}-${Math.random()}`;  // names the object that the next prompts add
    if (render && this.state) this.render();
  }
  newObject() { this.select(null); toast("The next click adds a new object.", "note"); }

  // quietly: not requested by the user, so no messages.
  async find(quietly = false) {
    if (this.view.proposals) return this.leaveFind();
    this.taken = new Set();
    const frame = this.frame;
    const found = await this.try(() => this.api.proposals(frame));
    if (!found || frame !== this.frame || (quietly && this.state.objects.length)) return;
    if (!found.labels.some((v) => v)) return quietly ? null : toast("No objects were found on this frame; click on an object instead.", "note");
    this.found = found;
    const least = byId("found-least"), lowest = Math.floor(100 * Math.min(0.5, ...found.objects.map((o) => o.score))) / 100;
    if (Number(least.min) !== lowest) least.min = least.value = lowest;
    this.#showFound(); byId("find").setAttribute("aria-pressed", "true");
    this.hint("Click on an outlined object to add it, or on anything else.");
  }

  // Outline and list what was found: of the chosen classes, with a score above the threshold.
  #showFound() {
    const { found } = this, least = Number(byId("found-least").value);
    const shown = new Set(found.objects.map((o, i) => o.score >= least && !this.unwanted.has(o.label) ? i + 1 : 0).filter((n) => n && !this.taken?.has(n)));
    this.view.setProposals({ ...found, labels: found.labels.map((n) => shown.has(n) ? n : 0) });
    byId("found-box").hidden = false;
    byId("found-count").textContent = shown.size;
    showFound([...shown].map((n) => ({ number: n, ...found.objects[n - 1] })), (n) => this.view.setHot(n), (n) => this.accept(n));
    showClasses(found.objects, this.unwanted, (label) => {
      if (!this.unwanted.delete(label)) this.unwanted.add(label);
      this.#showFound();
    });
  }

  accept(number, frame = this.view.frame) {
    (this.taken ??= new Set()).add(number);
    this.#showFound();
    return this.act({ do: "accept", frame, number });
  }

  leaveFind() {
    if (!this.view.proposals) return;
    this.view.setProposals(null); byId("found-box").hidden = true; byId("find").setAttribute("aria-pressed", "false");
    this.hint("");
  }

  track(direction = "both") {
    byId("track-menu").hidden = true; this.came = this.frame; this.setFollow(true); askToNotify();
    return this.act({ do: "track", direction, preset: this.preset });
  }
  // The running job shows each frame that it has done, until the view is moved by hand.
  setFollow(follow) { this.follow = follow; byId("follow").setAttribute("aria-pressed", String(follow)); }
  setPreset(preset) {
    this.preset = preset;
    for (const b of document.querySelectorAll("[data-preset]")) b.setAttribute("aria-checked", String(b.dataset.preset === (preset ?? "")));
  }
  setSolo(object) { this.solo = this.solo === object ? null : object; this.render(); }
  showAll() {
    const show = !this.state.objects.every((o) => o.visible);
    this.solo = null;
    for (const o of this.state.objects) if (o.visible !== show) this.entry({ type: "changed", object: o.id, visible: show });
    this.render();
  }
  get running() { return isRunning(this.state.job); }
  stopTracking() { if (this.running) this.act({ do: "stop" }); }
  clearPrompt() {
    if (this.state.objects.find((o) => o.id === this.selected)?.anchors.some((a) => a.frame === this.frame)) this.entry({ type: "cleared", object: this.selected, frame: this.frame });
  }
  gone() {
    if (this.selected == null) return toast("Select the absent object first.", "note");
    this.pause();
    return this.act({ do: "gone", frame: this.frame, object: this.selected });
  }
  range(what) {
    const { first, last, end } = this.state;
    const next = { first, last, ...what };
    return this.entry({ type: "range", first: next.first, ...(next.last < end ? { last: next.last } : {}) });
  }

  markIn() { this.range({ first: this.state.first === this.frame ? this.state.start : this.frame }); }
  markOut() { this.range({ last: this.state.last === this.frame ? this.state.end : this.frame }); }

  setTool(tool) {
    this.tool = tool; this.view.setTool(tool);
    for (const b of document.querySelectorAll("[data-tool]")) b.setAttribute("aria-pressed", String(b.dataset.tool === tool));
    this.hint(HINTS[tool]);
    if (this.state) this.#renderFrame();
  }

  hint(text) {
    byId("hint").textContent = text;
    clearTimeout(this.hintTimer);
    this.hintTimer = setTimeout(() => { byId("hint").textContent = ""; }, 5000);
  }

  setMode(mode) {
    this.view.setMode(mode);
    for (const b of document.querySelectorAll("[data-mode]")) b.setAttribute("aria-pressed", String(b.dataset.mode === mode));
  }

  setRadius(radius) { this.view.radius = Math.min(120, Math.max(2, radius)) * this.state.width / 1280; byId("radius").value = radius; this.view.draw(); }

  // Playback and seeking

  // Go to a frame because a person wants to; a running job shows its own frames no longer.
  seek(frame) {
    this.pause();
    if (this.running) this.setFollow(false);
    return this.#goTo(frame);
  }

  #seekText(text) {
    const frame = frameOf(text, this.state.fps);
    if (frame === null) return toast("Write a frame number, a timecode (00:00:03:12) or a time (3.5s).");
    return this.seek(/^\d+$/.test(text.trim()) ? frame : this.state.start + frame);
  }

  #setFrame(frame) {
    this.frame = frame;
    this.timeline.setFrame(frame); this.#renderFrame();
  }

  async #goTo(frame) {
    frame = Math.min(this.state.end, Math.max(this.state.start, Math.round(frame)));
    if (frame !== this.frame) this.leaveFind();
    history.replaceState(null, "", `#frame=${frame}`);
    this.#setFrame(frame);
    await this.refresh();
    clearTimeout(this.prepareTimer);
    if (!this.playing && !this.running) this.prepareTimer = setTimeout(() => this.api.prepare(frame).catch(() => {}), 160);
  }

  // Fetch and show the current frame; while one is loading, only the newest request is kept.
  refresh() {
    this.again = true;
    this.loading ??= this.#load();
    return this.loading;
  }

  async #load() {
    try { while (this.again) await this.#loadOne(); } finally { this.loading = null; }  // at once: a request from here on begins anew
  }

  async #loadOne() {
    this.again = false;
    const frame = this.frame;
    const slow = setTimeout(() => toast(DECODING, "note"), SLOW_MS);
    try {
      const [image, masks] = await this.frames.both(frame);
      if (frame === this.frame || this.again) this.#display(frame, image, masks);
    } catch (error) {
      if (/has no frame/.test(error.message)) await this.try(async () => this.take(await this.api.state()));
      if (frame === this.frame) this.fail(error);  // else the video ends earlier, and its end is shown
    } finally { clearTimeout(slow); }
  }

  #display(frame, image, masks) {
    this.shownFrame = frame;
    this.view.show(frame, image, masks, this.view.prompts);
    if (byId("export-dialog").open) this.exports.preview();
  }

  get playing() { return this.playback.playing; }
  play(rate = 1) {
    if (this.playing && rate === 1) return this.pause();
    this.leaveFind(); this.setFollow(false); setIcon(byId("play"), "pause");
    this.playback.play(rate);
  }

  // J, K and L of editing programs: again, and it is faster.
  shuttle(side) {
    const { rate } = this.playback;
    this.play(this.playing && Math.sign(rate) === side ? Math.max(-8, Math.min(8, 2 * rate)) : side);
  }

  pause() { if (this.playing) this.playback.stop(); }

  // Fetch thumbnails one after the other while nothing else is going on.
  async #fetchFilm(frames) {
    this.filmWanted = frames;
    if (this.filming) return;
    this.filming = true;
    for (;;) {
      const frame = this.filmWanted?.find((f) => !this.timeline.film.has(f));
      if (frame === undefined) break;
      if (this.running || this.playing || this.loading || this.busy || document.hidden) { await new Promise((done) => setTimeout(done, 400)); continue; }
      try { this.timeline.film.set(frame, await this.api.image(frame, 96)); } catch { break; }
      while (this.timeline.film.size > 400) this.timeline.film.delete(this.timeline.film.keys().next().value);
      this.timeline.draw();
      await new Promise((done) => setTimeout(done, 30));
    }
    this.filming = false;
  }

  jumpObject(side) {
    const ids = this.ordered().map((o) => o.id);
    if (!ids.length) return;
    const at = ids.indexOf(this.selected);
    this.select(ids[at < 0 ? 0 : (at + side + ids.length) % ids.length]);
  }

  jumpAnchor(side) {
    const all = this.state.objects.filter((o) => this.selected == null || o.id === this.selected).flatMap((o) => o.anchors.map((a) => a.frame)).sort((a, b) => a - b);
    const next = side > 0 ? all.find((f) => f > this.frame) : all.reverse().find((f) => f < this.frame);
    if (next !== undefined) this.seek(next);
  }

  // Cycle through the review items in frame order.
  jumpIssue(side) {
    const sorted = [...(this.reviewShown ?? [])].sort((a, b) => a.frame - b.frame);
    if (!sorted.length) return;
    const next = side > 0 ? sorted.find((d) => d.frame > this.frame) ?? sorted[0] : sorted.reverse().find((d) => d.frame < this.frame) ?? sorted[0];
    this.select(next.object); this.seek(next.frame);
  }

  // Polling the server

  async #poll() {
    for (;;) {
      const busy = this.running || isExporting(this.state.export);
      await new Promise((done) => setTimeout(done, busy || this.offline ? POLL_BUSY_MS : POLL_IDLE_MS));
      if (document.hidden && !busy) continue;
      try {
        this.take(await this.api.state());
        if (this.offline) { this.#setOffline(false); toast("The server is back.", "note"); this.refresh(); }
      } catch (error) {
        this.fail(error);
        this.#setOffline(Boolean(error.offline));
        if (error.status === 404) return;
      }
    }
  }

  #follow(before, job) {
    if (job.frame < 0 || job.frame === before?.frame) return;
    this.frames.forget(this.frame);
    if (!this.playing && this.follow) { this.frames.forget(job.frame); this.#goTo(job.frame); }
  }

  #ended(job) {
    if (job.status === "failed") toast(job.message);
    else toast(job.status === "stopped" ? `Stopped. ${job.done} frames are kept.` : "Tracked.", "note");
    if (job.status !== "stopped") notify(this.state.title, job.status === "failed" ? job.message : "Tracked.");
    if (this.came !== undefined && this.follow) this.#goTo(this.came);
    this.came = undefined;
  }

  async #loadTimeline() {
    const found = await this.try(() => this.api.timeline());
    if (!found) return;
    this.strips = found.strips; this.review = found.review;
    this.render();
  }

  #wire() {
    const on = (id, what) => { byId(id).onclick = what; };
    on("undo", () => this.act({ do: "undo" })); on("redo", () => this.act({ do: "redo" }));
    on("track", () => this.track()); on("next-track", () => byId("track").click());
    on("clean", () => this.cleanUp()); on("clean-apply", () => this.applyCleanup());
    byId("model").replaceChildren(...this.facts.models.map((name, i) => new Option(name, i ? name : "")));
    byId("model-label").hidden = this.facts.models.length < 2;
    byId("model").onchange = (e) => this.entry({ type: "model", model: e.target.value });
    byId("found-least").oninput = () => this.#showFound();
    on("found-all", () => { for (const b of document.querySelectorAll("#found button")) b.click(); });
    on("follow", () => this.setFollow(!this.follow)); on("show-all", () => this.showAll());
    for (const b of document.querySelectorAll("[data-preset]")) b.onclick = () => this.setPreset(b.dataset.preset || undefined);
    on("gone", () => this.gone()); on("gone-undo", () => this.clearPrompt());
    on("track-more", () => { byId("track-menu").hidden = !byId("track-menu").hidden; });
    for (const b of document.querySelectorAll("[data-direction]")) b.onclick = () => this.track(b.dataset.direction);
    document.addEventListener("pointerdown", (e) => { if (!e.target.closest("#track-split")) byId("track-menu").hidden = true; });
    on("pause", () => this.act({ do: this.state.job.status === "paused" ? "resume" : "pause" }));
    on("stop", () => this.stopTracking());
    on("export", () => { this.pause(); this.exports.open(this.state); });
    on("help", () => byId("help-dialog").showModal());
    on("find", () => this.find()); on("fit", () => this.view.fit()); on("new-object", () => this.newObject());
    on("choose", () => this.act({ do: "choose", frame: this.frame, object: this.selected }));
    on("play", () => this.play()); on("back", () => this.seek(this.frame - 1)); on("forth", () => this.seek(this.frame + 1));
    on("anchor-back", () => this.jumpAnchor(-1)); on("anchor-forth", () => this.jumpAnchor(1)); on("next-issue", () => this.jumpIssue(1)); on("previous-issue", () => this.jumpIssue(-1));
    on("zoom-in", () => this.timeline.zoomBy(1.6)); on("zoom-out", () => this.timeline.zoomBy(1 / 1.6));
    on("mark-in", () => this.markIn()); on("mark-out", () => this.markOut());
    for (const b of document.querySelectorAll("[data-tool]")) b.onclick = () => this.setTool(b.dataset.tool);
    for (const b of document.querySelectorAll("[data-mode]")) b.onclick = () => this.setMode(b.dataset.mode);
    byId("radius").oninput = (e) => this.setRadius(Number(e.target.value));
    byId("frame").onkeydown = (e) => { e.stopPropagation(); if (e.key === "Enter") { this.#seekText(e.target.value); e.target.blur(); } if (e.key === "Escape") e.target.blur(); };
    byId("frame").onblur = () => this.#renderFrame();
    listenForKeys(this);
  }
}

async function main() {
  fillIcons(); startTheme(() => { window.page?.timeline.draw(); window.page?.view.draw(); }); startTips(); fillShortcuts();
  const token = new URLSearchParams(location.search).get("s");
  try {
    const facts = await about();
    if (!token) return showStart(facts);
    window.page = new Page(token, facts);
    try { await window.page.begin(); } catch (error) {
      if (error.status === 404) forget(token);
      byId("editor").hidden = true;
      toast(error.message); showStart(facts);
    }
  } catch (error) { toast(error.message); }
}

main();
