// Tracking progress: the bar at the top, and the suggested next step over the image.
import { setIcon } from "./icons.js";
import { clock } from "./timeline.js";

const byId = (id) => document.getElementById(id);
const ENDED = ["done", "stopped", "failed"];
const WORDS = { running: "Tracking", paused: "Paused", stopping: "Stopping", joining: "Saving" };
const frameWord = (count) => `${count} ${count === 1 ? "frame" : "frames"}`;

export const isRunning = (job) => Boolean(job) && !ENDED.includes(job.status);

// Count the frames covered by spans that may overlap.
function countFrames(spans) {
  let count = 0, end = -1;
  for (const s of [...spans].sort((a, b) => a.first - b.first)) {
    count += Math.max(0, s.last - Math.max(s.first, end + 1) + 1);
    end = Math.max(end, s.last);
  }
  return count;
}

const COSTS = { draft: "Every 8th frame is looked at anew", "": "More frames where masks need them", final: "Every frame is looked at anew" };
const aboutTime = (s) => s < 90 ? `${Math.max(1, Math.round(s))} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;

export function showJob({ job, stale, store, objects, seconds }) {
  const running = isRunning(job);
  byId("job").hidden = !running; byId("track-split").hidden = running;
  if (running) {
    byId("job-what").textContent = job.status === "waiting" ? `Waiting, ${job.message}` : `${WORDS[job.status]} ${job.done} / ${job.total}`;
    byId("job-speed").textContent = job.status === "running" && job.fps ? `${job.fps} fps, ${clock(job.left_s ?? 0, false)} left` : "";
    byId("job-bar").style.width = `${100 * job.done / Math.max(1, job.total)}%`;
    setIcon(byId("pause"), job.status === "paused" ? "play" : "pause");
  }
  for (const choice of document.querySelectorAll("[data-preset]")) {
    const estimate = seconds[choice.dataset.preset];
    choice.querySelector("small").textContent = `${COSTS[choice.dataset.preset]}${estimate === undefined ? "" : `; about ${aboutTime(estimate)}`}`;
  }
  const frames = countFrames(stale), stopped = job?.status === "stopped" && store;
  byId("track").disabled = byId("track-more").disabled = !stale.length;
  byId("track-label").textContent = store && !stale.length ? "Tracked" : store ? `Track ${frameWord(frames)}` : "Track";
  byId("track-split").classList.toggle("due", stale.length > 0);
  byId("next").hidden = running || !stale.length;
  const names = [...new Set(stale.map((s) => objects.find((o) => o.id === s.object)?.name))];
  const who = names.length > 2 ? `${names.length} objects` : names.join(" and ");
  byId("next-text").textContent = !store ? `${who}: masks on the prompted frames only.`
    : stopped ? `Stopped; ${frameWord(frames)} left.` : `${who}: ${frameWord(frames)} to track again.`;
  byId("next-label").textContent = stopped ? "Continue" : "Track now";
}
