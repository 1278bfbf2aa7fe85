// The start screen: drop a file, open a path or an example, or continue a recent session.
import { fetchVideo, openSession, upload } from "./api.js";
import { bytes } from "./exporting.js";
import { toast } from "./notices.js";

const byId = (id) => document.getElementById(id);
const RECENT = "maskstream.recent";

export function recents() {
  try { return JSON.parse(localStorage.getItem(RECENT)) ?? []; } catch { return []; }
}

export function remember(token, title) {
  const kept = [{ token, title, when: Date.now() }, ...recents().filter((r) => r.token !== token)].slice(0, 8);
  try { localStorage.setItem(RECENT, JSON.stringify(kept)); } catch { /* private window */ }
}

export function forget(token) {
  try { localStorage.setItem(RECENT, JSON.stringify(recents().filter((r) => r.token !== token))); } catch { /* same */ }
}

export const addressOf = (token) => `?s=${encodeURIComponent(token)}`;

async function go(opening) {
  document.body.style.cursor = "progress"; byId("opening").hidden = false;
  try { location.href = addressOf(await opening); } catch (error) { toast(error.message); } finally {
    document.body.style.cursor = ""; byId("opening").hidden = true;
  }
}

function send(file, limit) {
  if (file.size > limit * 1048576) {
    toast(`“${file.name}” is too large to upload (${bytes(file.size)}, at most ${bytes(limit * 1048576)}); open it by its path on the server, or cut it.`);
    return;
  }
  const bar = byId("upload");
  bar.hidden = false;
  const done = upload(file, (share) => {
    bar.querySelector("i").style.width = `${100 * share}%`;
    bar.querySelector("em").textContent = share < 1 ? `${file.name}, ${Math.floor(100 * share)} %` : "Opening…";
  });
  go(done).finally(() => { bar.hidden = true; byId("file").value = ""; });
}

export function showStart(about) {
  byId("start").hidden = false;
  byId("upload-limit").textContent = `up to ${bytes(about.upload_mb * 1048576)}`;
  byId("file").onchange = (e) => { if (e.target.files[0]) send(e.target.files[0], about.upload_mb); };
  const drop = byId("drop");
  drop.onkeydown = (e) => { if (e.key === "Enter" || e.key === " ") byId("file").click(); };
  addEventListener("dragover", (e) => { e.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (e) => {
    e.preventDefault();
    drop.classList.remove("over");
    if (e.dataTransfer.files[0]) send(e.dataTransfer.files[0], about.upload_mb);
  });
  byId("path-form").hidden = !about.roots.length;
  byId("path").placeholder = "https://…, or the path of a video or a folder of images";
  byId("path").title = `Paths below ${about.roots.join(", ")}`;
  byId("path-form").onsubmit = (e) => {
    e.preventDefault();
    const path = byId("path").value.trim();
    if (path) go(/^https?:/i.test(path) ? fetchVideo(path) : openSession({ path }));
  };
  byId("examples").replaceChildren(...about.examples.map((example) => {
    const card = document.createElement("button");
    card.className = "example"; card.dataset.example = example.name;
    const image = document.createElement("img");
    image.src = `api/examples/${example.name}.jpg`; image.alt = ""; image.loading = "lazy";
    const title = document.createElement("span");
    title.textContent = example.title;
    card.append(image, title);
    card.onclick = () => go(openSession({ example: example.name }));
    return card;
  }));
  const kept = recents();
  byId("recent-box").hidden = !kept.length;
  byId("recent").replaceChildren(...kept.slice(0, 4).map((recent) => {
    const link = document.createElement("a");
    link.href = addressOf(recent.token);
    const title = document.createElement("span"), when = document.createElement("span");
    title.textContent = recent.title; when.className = "dim"; when.textContent = new Date(recent.when).toLocaleString();
    link.append(title, when);
    const item = document.createElement("li"); item.append(link);
    return item;
  }));
}
