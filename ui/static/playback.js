// Playback at the clip's own rate, from frames that are fetched in blocks ahead. Frames that come too late are
// dropped, never slowed down, and their number is shown.
const byId = (id) => document.getElementById(id);
const BLOCK = 16; // frames of a request
const AHEAD = 2; // blocks
const WAIT_MS = 3000; // for the first frames

export class Playback {
  constructor(on) { this.on = on; this.playing = false; this.rate = 0; }

  // rate: times the clip's own; negative: backward.
  async play(rate) {
    const turn = this.turn = (this.turn ?? 0) + 1;
    this.playing = true; this.rate = rate;
    const state = this.on.state(), frames = this.on.frames(), side = Math.sign(rate);
    const [first, last] = [state.first, state.last];
    let start = this.on.frame();
    if (side > 0 && start >= last) start = first;
    if (side < 0 && start <= first) start = last;
    const fetchAhead = (frame) => {
      const blocks = Array.from({ length: AHEAD + 1 }, (_, i) => frames.block(Math.floor(frame / BLOCK) * BLOCK + i * side * BLOCK, BLOCK));
      return blocks[0];
    };
    await Promise.race([fetchAhead(start), new Promise((done) => setTimeout(done, WAIT_MS))]);
    let shown = 0, dropped = 0, before = start;
    const startMs = performance.now();
    while (this.playing && this.turn === turn) {
      const wanted = start + side * Math.floor((performance.now() - startMs) * state.fps * Math.abs(rate) / 1000);
      const frame = Math.min(last, Math.max(first, wanted));
      if (frame !== before) {
        fetchAhead(frame);
        const found = await frames.played(frame);
        if (!this.playing || this.turn !== turn) return;
        if (found) {
          this.on.show(frame, ...found);
          shown++; dropped += Math.max(0, Math.round(Math.abs(frame - before) / Math.max(1, Math.abs(rate))) - 1);
          before = frame;
        }
        const seconds = (performance.now() - startMs) / 1000;
        byId("rate").textContent = `${rate === 1 ? "" : `${rate}× · `}${Math.round(shown / seconds)} of ${Math.round(state.fps)} fps${dropped ? ` · ${dropped} dropped` : ""}`;
      }
      if (frame === (side > 0 ? last : first) && before === frame) break;
      await new Promise(requestAnimationFrame);
    }
    if (this.turn === turn) this.stop();
  }

  stop() {
    if (!this.playing) return;
    this.playing = false; this.rate = 0; this.turn++;
    this.on.ended();
  }
}
