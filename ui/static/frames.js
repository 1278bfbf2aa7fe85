// Bounded caches of images and label maps of frames; missing ones are fetched.
const IMAGES = 90;
const LABELS = 120;

export class Frames {
  constructor(api, side) {
    this.api = api;
    this.side = side;
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
