// Bounded caches of images and masks of frames; missing ones are fetched.
import { unpack } from "./api.js";

const IMAGES = 90;
const LABELS = 120;
const PLAYED_BYTES = 3e8; // of compressed frames for playback, which later passes show again
const PLAYED_SIDE = 960;
const RETRY_MS = 500;

export class Frames {
  constructor(api, side, { start, end }) {
    this.api = api;
    this.side = side;
    [this.start, this.end] = [start, end];
    this.blocks = new Map(); // images and masks for playback, by frame
    this.bytes = 0;
    this.images = new Map();
    this.labels = new Map();
    this.version = "";
    this.waiting = new Map();
  }

  // Label maps depend on the version of the session; images never change.
  setVersion(version) {
    if (version === this.version) return;
    this.version = version;
    this.labels.clear();
  }

  async image(frame, signal) {
    const kept = this.#recall(this.images, frame);
    if (kept) return kept;
    return this.#once(`p${frame}`, async () => {
      const image = await this.api.image(frame, this.side, signal);
      this.#keep(this.images, frame, image, IMAGES);
      return image;
    });
  }

  async masks(frame, signal) {
    const kept = this.#recall(this.labels, frame);
    if (kept) return kept;
    const version = this.version;
    return this.#once(`l${frame}@${version}`, async () => {
      const masks = await this.api.labels(frame, this.side, signal);
      if (version === this.version) this.#keep(this.labels, frame, masks, LABELS);
      return masks;
    });
  }

  both(frame, signal) { return Promise.all([this.image(frame, signal), this.masks(frame, signal)]); }
  forget(frame) { this.labels.delete(frame); }

  // Fetch consecutive frames for playback that are not there yet, images and masks, at a size that is quick.
  async block(first, count) {
    first = Math.max(this.start, first);
    const { version } = this, last = Math.min(this.end, first + count - 1);
    let complete = true;
    for (let frame = first; frame <= last; frame++) complete &&= this.blocks.get(frame)?.version === version;
    if (complete) return;
    await this.#once(`b${first}@${version}`, async () => {
      try {
        for (const found of await this.api.frames(first, last - first + 1, Math.min(this.side, PLAYED_SIDE))) {
          this.#forgetPlayed(found.frame);
          this.bytes += found.image.size + found.masks.size;
          this.blocks.set(found.frame, { ...found, version });
        }
      } catch { await new Promise((done) => setTimeout(done, RETRY_MS)); }  // and so it is asked for again no sooner
      while (this.bytes > PLAYED_BYTES && this.blocks.size > 4 * count) this.#forgetPlayed(this.blocks.keys().next().value);
    });
  }

  // Image and masks of a frame for playback; null if they are not there yet.
  async played(frame) {
    const found = this.blocks.get(frame);
    if (!found) return null;
    const inflated = found.masks.stream().pipeThrough(new DecompressionStream("gzip"));
    const [image, bytes] = await Promise.all([createImageBitmap(found.image), new Response(inflated).arrayBuffer()]);
    return [image, unpack(found.about, new Uint8Array(bytes))];
  }

  #forgetPlayed(frame) {
    const kept = this.blocks.get(frame);
    if (!kept) return;
    this.bytes -= kept.image.size + kept.masks.size;
    this.blocks.delete(frame);
  }

  #recall(kept, key) {
    const value = kept.get(key);
    if (value !== undefined) { kept.delete(key); kept.set(key, value); }
    return value;
  }

  #keep(kept, key, value, most) {
    kept.set(key, value);
    while (kept.size > most) {
      const oldest = kept.keys().next().value;
      kept.get(oldest).close?.();
      kept.delete(oldest);
    }
  }

  #once(key, fetchIt) {
    if (!this.waiting.has(key)) {
      this.waiting.set(key, fetchIt().finally(() => this.waiting.delete(key)));
    }
    return this.waiting.get(key);
  }
}
