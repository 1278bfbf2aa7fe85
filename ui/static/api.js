// Requests to the server. Every failure is thrown as an Error with a sentence for the user.
const BASE = new URL("api/", document.baseURI);

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, BASE), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const lost = new Error("The server cannot be reached. Is it still running? Trying again.");
    lost.offline = true;
    throw lost;
  }
  if (response.ok) return response;
  let sentence = `The server answered ${response.status}.`;
  try { sentence = (await response.json()).error || sentence; } catch { /* not JSON */ }
  const failure = new Error(sentence);
  failure.status = response.status;
  throw failure;
}

const send = (path, body) => ask(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});
const post = (path, body) => send(path, body).then((r) => r.json());

export const about = () => ask("about").then((r) => r.json());
export const openSession = (wanted) => post("sessions", wanted).then((r) => r.token);

export const fetchVideo = (url) => post("fetch", { url }).then((r) => r.token);

export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", new URL(`upload?name=${encodeURIComponent(file.name)}`, BASE));
    request.upload.onprogress = (e) => onProgress(e.loaded / Math.max(1, e.total));
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* not JSON */ }
      if (request.status === 200) resolve(answer.token);
      else reject(new Error(answer.error || `The upload failed (${request.status}).`));
    };
    request.onerror = () => reject(new Error("The upload was interrupted; try again."));
    request.send(file);
  });
}

const begin = (address) => post("live", { address }).then((r) => r.token);

// A live run. address: a camera of the server; null: the browser sends images of its own camera.
export class CameraApi {
  static async begin(address) { return new CameraApi(await begin(address)); }
  constructor(token) { this.path = `live/${encodeURIComponent(token)}`; }
  act(what) { return post(`${this.path}/do`, what); }
  image(blob, stamp) { return ask(`${this.path}/image?stamp=${stamp}`, { method: "POST", body: blob }); }
  get recording() { return new URL(`${this.path}/recording`, BASE).href; }
  // Wait for a result after a frame: status of the run and, if there is a result, image and masks.
  async next(after) {
    const response = await ask(`${this.path}/next?after=${after}`);
    const about = JSON.parse(response.headers.get("X-About"));
    if (!about.jpeg) return { about };
    const body = await response.blob();
    const image = await createImageBitmap(body.slice(0, about.jpeg));
    const inflated = body.slice(about.jpeg).stream().pipeThrough(new DecompressionStream("deflate"));
    const labels = new Uint8Array(await new Response(inflated).arrayBuffer());
    return { about, image, masks: { labels, width: about.labels[0], height: about.labels[1] } };
  }
}

// Masks of a frame. labels: the object on top, by pixel; covered: parts of objects under others, the upper ones last.
export function unpack(about, bytes) {
  const [width, height] = about.size;
  let at = width * height;
  const covered = (about.covered ?? []).map(([id, x, y, w, h]) => {
    const mask = bytes.subarray(at, at += w * h);
    return { id, x, y, width: w, height: h, mask };
  });
  return { labels: bytes.subarray(0, width * height), width, height, objects: about.objects, covered };
}

async function packed(path, options) {
  const response = await ask(path, options);
  const about = JSON.parse(response.headers.get("X-About"));
  return unpack(about, new Uint8Array(await response.arrayBuffer()));
}

export class SessionApi {
  constructor(token) { this.path = `s/${encodeURIComponent(token)}`; }
  progress() { return ask(`${this.path}/progress`).then((r) => r.json()); }
  state() { return ask(this.path).then((r) => r.json()); }
  act(what) { return post(`${this.path}/do`, what); }
  async image(frame, side, signal) {
    const response = await ask(`${this.path}/image/${frame}?side=${side}`, { signal });
    return createImageBitmap(await response.blob());
  }
  // Consecutive frames for playback: JPEG image and compressed masks of each.
  async frames(first, count, side) {
    const response = await ask(`${this.path}/frames/${first}?count=${count}&side=${side}`);
    const buffer = await response.arrayBuffer();
    const length = new DataView(buffer).getUint32(0, true);
    let at = 4 + length;
    const take = (bytes) => new Blob([buffer.slice(at, at += bytes)]);
    return JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))).map(({ frame, jpeg, packed, about }) => ({
      frame, about, image: take(jpeg), masks: take(packed),
    }));
  }
  labels(frame, side, signal) { return packed(`${this.path}/labels/${frame}?side=${side}`, { signal }); }
  proposals(frame) { return packed(`${this.path}/proposals/${frame}`); }
  // What a click would do; null while the server has something else to do.
  async preview(frame, { x, y, label }, object, side) {
    const about = object == null ? "" : `&object=${object}`;
    const response = await ask(`${this.path}/preview/${frame}?x=${x}&y=${y}&label=${label}${about}&side=${side}`);
    return response.status === 204 ? null : unpack(JSON.parse(response.headers.get("X-About")), new Uint8Array(await response.arrayBuffer()));
  }
  prepare(frame) { return ask(`${this.path}/prepare/${frame}`, { method: "POST" }); }
  timeline() { return ask(`${this.path}/timeline`).then((r) => r.json()); }
  async cutout(frame, wanted) {
    const response = await send(`${this.path}/cutout/${frame}`, wanted);
    return createImageBitmap(await response.blob());
  }
  export(wanted) { return post(`${this.path}/export`, wanted); }
  cancelExport() { return post(`${this.path}/export/cancel`, {}); }
  get download() { return new URL(`${this.path}/download`, BASE).href; }
}
