// The videos of this browser: which sessions there are, and what is going on in each.
import { SessionApi } from "./api.js";
import { bytes, isExporting, TITLES } from "./exporting.js";
import { isRunning } from "./job.js";
import { askToNotify, notify, toast } from "./notices.js";

const byId = (id) => document.getElementById(id);
const KEPT = "maskstream.recent", MOST = 24, POLL_MS = 2500;

function recents() {
  try { return JSON.parse(localStorage.getItem(KEPT)) ?? []; } catch { return []; }
}

function keep(list) {
  try { localStorage.setItem(KEPT, JSON.stringify(list)); } catch { /* private window */ }
}

export const addressOf = (token) => `?s=${encodeURIComponent(token)}`;
export const remember = (token, title) => keep([{ token, title, when: Date.now() }, ...recents().filter((r) => r.token !== token)].slice(0, MOST));
export const forget = (token) => keep(recents().filter((r) => r.token !== token));

// What is said of a session, in a few words.
function saying({ objects, tracked, job, export: task }) {
  if (isRunning(job)) return job.status === "waiting" ? `Waiting, ${job.message}` : `Tracking ${Math.floor(100 * job.done / Math.max(1, job.total))} %`;
  if (isExporting(task)) return task.status === "waiting" ? "Waiting to export" : `Exporting ${task.total ? Math.floor(100 * task.done / task.total) : 0} %`;
  if (job?.status === "failed") return job.message;
  if (task?.status === "failed") return task.message;
  if (task?.status === "done") return `${task.file}, ${bytes(task.size)}`;
  return tracked ? "Tracked" : objects ? "Not tracked yet" : "No objects yet";
}

export class VideoList {
  constructor(formats) {
    this.progress = new Map();
    byId("all-format").replaceChildren(...formats.map(({ name }) => new Option(TITLES[name] ?? name, name)));
    byId("all-format").value = "prores";
    byId("track-all").onclick = () => this.#all("Nothing is left to track.", ({ objects, job }) => objects && !isRunning(job), (api) => api.act({ do: "track" }));
    byId("export-all").onclick = () => this.#all("Nothing is tracked yet.", ({ tracked, job, export: task }) => tracked && !isRunning(job) && !isExporting(task), async (api) => {
      const { objects } = await api.state();
      return api.export({ format: byId("all-format").value, objects: objects.map((o) => o.id) });
    });
  }

  async show() {
    const kept = recents();
    byId("recent-box").hidden = !kept.length;
    byId("recent").replaceChildren(...kept.map((recent) => this.#row(recent)));
    await this.#ask();
    if (!this.polling) { this.polling = true; this.#poll(); }
  }

  #row({ token, title, when }) {
    const row = document.createElement("li"), link = document.createElement("a"), file = document.createElement("a");
    row.dataset.session = token;
    link.href = addressOf(token);
    const name = document.createElement("span"), says = document.createElement("span");
    name.textContent = title; says.className = "dim says"; says.textContent = new Date(when).toLocaleString();
    link.append(name, says);
    file.className = "button small"; file.textContent = "Download"; file.href = new SessionApi(token).download; file.hidden = true;
    row.append(link, file);
    return row;
  }

  async #ask() {
    for (const { token, title } of recents()) {
      const row = document.querySelector(`[data-session="${CSS.escape(token)}"]`);
      if (!row) continue;
      try {
        const now = await new SessionApi(token).progress(), before = this.progress.get(token);
        this.progress.set(token, now);
        row.querySelector(".says").textContent = saying(now);
        row.lastChild.hidden = now.export?.status !== "done";
        if (isRunning(before?.job) && !isRunning(now.job)) notify(title, saying(now));
        if (isExporting(before?.export) && !isExporting(now.export)) notify(title, saying(now));
      } catch (error) {
        if (error.status !== 404) return;
        forget(token); row.remove();
        byId("recent-box").hidden = !recents().length;
      }
    }
  }

  async #poll() {
    for (;;) {
      await new Promise((done) => setTimeout(done, POLL_MS));
      await this.#ask();
    }
  }

  // Begin something in every video that it fits; the server lets them wait in line.
  async #all(nothing, fits, begin) {
    askToNotify();
    await this.#ask();
    let begun = 0;
    for (const { token, title } of recents()) {
      const now = this.progress.get(token);
      if (!now || !fits(now)) continue;
      try { await begin(new SessionApi(token)); begun++; } catch (error) {
        if (!/Everything is tracked|Click on an object first/.test(error.message)) toast(`${title}: ${error.message}`);
      }
    }
    if (!begun) toast(nothing, "note");
    await this.#ask();
  }
}
