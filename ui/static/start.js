// The start screen: drop files, open a path or an example, or continue with a video of this browser.
import { fetchVideo, openSession, upload } from "./api.js";
import { addressOf, remember, VideoList } from "./videos.js";
import { bytes } from "./exporting.js";
import { toast } from "./notices.js";

const byId = (id) => document.getElementById(id);
async function go(opening) {
  document.body.style.cursor = "progress"; byId("opening").hidden = false;
  try { location.href = addressOf(await opening); } catch (error) { toast(error.message); } finally {
    document.body.style.cursor = ""; byId("opening").hidden = true;
  }
}

async function sendOne(file, limit) {
  if (file.size > limit * 1048576) {
    throw new Error(`“${file.name}” is too large to upload (${bytes(file.size)}, at most ${bytes(limit * 1048576)}); open it by its path on the server, or cut it.`);
  }
  const bar = byId("upload");
  bar.hidden = false;
  try {
    return await upload(file, (share) => {
      bar.querySelector("i").style.width = `${100 * share}%`;
      bar.querySelector("em").textContent = share < 1 ? `${file.name}, ${Math.floor(100 * share)} %` : "Opening…";
    });
  } finally { bar.hidden = true; byId("file").value = ""; }
}

// One video is opened; of several, each gets a place in the list.
async function send(files, limit, list) {
  if (files.length === 1) return go(sendOne(files[0], limit));
  for (const file of files) {
    try { remember(await sendOne(file, limit), file.name.replace(/\.[^.]*$/, "")); } catch (error) { toast(error.message); }
    list.show();
  }
  list.show();
}

export function showStart(about) {
  byId("start").hidden = false;
  byId("upload-limit").textContent = `up to ${bytes(about.upload_mb * 1048576)}`;
  const list = new VideoList(about.formats);
  byId("file").onchange = (e) => { if (e.target.files.length) send([...e.target.files], about.upload_mb, list); };
  const drop = byId("drop");
  drop.onkeydown = (e) => { if (e.key === "Enter" || e.key === " ") byId("file").click(); };
  addEventListener("dragover", (e) => { e.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (e) => {
    e.preventDefault();
    drop.classList.remove("over");
    if (e.dataTransfer.files.length) send([...e.dataTransfer.files], about.upload_mb, list);
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
  list.show();
}
