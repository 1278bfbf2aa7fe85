// Parts of every page: toasts for errors, tooltips, light and dark theme.
const byId = (id) => document.getElementById(id);

export function toast(text, kind = "bad") {
  const box = byId("toasts");
  for (const old of box.children) if (old.dataset.text === text) old.remove();
  const item = document.createElement("div");
  item.className = `toast ${kind}`;
  item.dataset.text = text;
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.textContent = "✕";
  close.setAttribute("aria-label", "Dismiss");
  close.onclick = () => item.remove();
  item.append(words, close);
  box.append(item);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => item.remove(), kind === "bad" ? 9000 : 5000);
}

// Shown as long as the server does not answer.
export function showOffline(offline) {
  byId("offline").hidden = !offline;
}

// Tell of what has ended while another tab or program is in front; asked for when the first job begins.
export function askToNotify() {
  if (window.Notification?.permission === "default") Notification.requestPermission().catch(() => {});
}

export function notify(title, text) {
  if (document.hidden && window.Notification?.permission === "granted") new Notification(title, { body: text, icon: "static/icon.svg" });
}

export function startTheme(redraw) {
  const root = document.documentElement;
  let kept = null;
  try { kept = localStorage.getItem("maskstream.theme"); } catch { /* private window */ }
  const set = (theme) => { root.dataset.theme = theme; redraw(); };
  set(kept ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  byId("theme").onclick = () => {
    const theme = root.dataset.theme === "light" ? "dark" : "light";
    try { localStorage.setItem("maskstream.theme", theme); } catch { /* same */ }
    set(theme);
  };
}

export function startTips() {
  const tip = byId("tip");
  let timer = null;
  const hide = () => { clearTimeout(timer); tip.hidden = true; };
  document.addEventListener("pointerover", (e) => {
    const target = e.target.closest?.("[data-tip]");
    hide();
    if (!target || e.pointerType === "touch") return;
    timer = setTimeout(() => {
      tip.textContent = target.dataset.tip;
      if (target.dataset.key) {
        const key = document.createElement("kbd");
        key.textContent = target.dataset.key;
        tip.append(key);
      }
      tip.hidden = false;
      const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
      const rail = target.closest(".tools");
      const x = rail ? box.right + 8 : box.left + box.width / 2 - own.width / 2;
      const below = box.bottom + own.height + 12 < innerHeight;
      const y = rail ? box.top + box.height / 2 - own.height / 2 : below ? box.bottom + 8 : box.top - own.height - 8;
      tip.style.left = `${Math.min(innerWidth - own.width - 8, Math.max(8, x))}px`;
      tip.style.top = `${y}px`;
    }, 450);
  });
  document.addEventListener("pointerdown", hide);
  for (const element of document.querySelectorAll("[data-tip]")) {
    if (!element.getAttribute("aria-label")) element.setAttribute("aria-label", element.dataset.tip);
  }
}

const SHORTCUTS = [
  ["Play, pause", "Space"], ["Frame by frame", "← →"], ["Ten frames", "⇧ ← →"], ["Start, end", "Home End"],
  ["Previous, next prompt", "↑ ↓"], ["Back, pause, forward; again: faster", "J K L"], ["Previous, next issue", "⇞ ⇟"], ["In, out", "I O"],
  ["Add by click", "A"], ["Subtract by click", "S, right or ⇧ click"], ["Box", "B"], ["Brush, eraser", "P E"], ["Brush size", "[ ]"],
  ["Another mask", "C"], ["New object", "N"], ["Find objects", "F"], ["Clean up the mask", "U"], ["Absent from here on", "G"], ["Select under pointer", "Ctrl click"], ["Previous, next object", "⇧ ↑ ↓"], ["Up, down in the list", "Alt ↑ ↓"], ["Rename", "F2, double click"], ["Click by keyboard: aim, add, subtract", "X, Enter, ⇧ Enter"],
  ["Delete prompt here", "Backspace"], ["Undo, redo", "Ctrl Z, Ctrl ⇧ Z"], ["Track", "T"], ["Stop tracking", "Esc"],
  ["Overlay, cut-out, matte", "1 2 3"], ["Hide masks, solo", "H ⇧ S"], ["Zoom", "+ − wheel"], ["Fit", "0"],
];

export function fillShortcuts() {
  byId("shortcuts").replaceChildren(...SHORTCUTS.map(([what, key]) => {
    const row = document.createElement("div");
    const name = document.createElement("span"), keys = document.createElement("kbd");
    name.textContent = what; keys.textContent = key;
    row.append(name, keys);
    return row;
  }));
}
