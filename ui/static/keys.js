// Keyboard shortcuts, ignored while typing into a field.
const byId = (id) => document.getElementById(id);

export function listenForKeys(page) {
  const { view } = page;
  const plain = {
    " ": () => page.play(), a: () => page.setTool("add"), s: () => page.setTool("subtract"), b: () => page.setTool("box"),
    p: () => page.setTool("brush"), e: () => page.setTool("erase"), f: () => page.find(), n: () => page.newObject(), g: () => page.gone(),
    c: () => { if (!byId("candidates").hidden) byId("choose").click(); },
    t: () => { if (!byId("track").disabled && !page.running) byId("track").click(); },
    i: () => page.markIn(), o: () => page.markOut(),
    k: () => page.jumpIssue(1), j: () => page.jumpIssue(-1), h: () => { page.masksHidden = !page.masksHidden; page.render(); },
    1: () => page.setMode("overlay"), 2: () => page.setMode("cutout"), 3: () => page.setMode("matte"),
    0: () => view.fit(), "+": () => view.zoomBy(1.25), "=": () => view.zoomBy(1.25), "-": () => view.zoomBy(0.8),
    "[": () => page.setRadius(Number(byId("radius").value) - 4), "]": () => page.setRadius(Number(byId("radius").value) + 4),
    "?": () => byId("help-dialog").showModal(),
    arrowup: () => page.jumpAnchor(-1), arrowdown: () => page.jumpAnchor(1),
    home: () => page.seek(page.state.first), end: () => page.seek(page.state.last),
    backspace: () => page.clearPrompt(), delete: () => page.clearPrompt(),
    escape: () => { if (view.proposals) page.find(); else page.stopTracking(); },
  };
  addEventListener("keydown", (e) => {
    if (!page.state || document.querySelector("dialog[open]") || /^(text|number|color)$/.test(e.target.type ?? "") || e.target.id === "frame") return;
    const key = e.key.toLowerCase();
    if (e.ctrlKey || e.metaKey) {
      if (key === "z") { e.preventDefault(); page.act({ do: e.shiftKey ? "redo" : "undo" }); }
      if (key === "y") { e.preventDefault(); page.act({ do: "redo" }); }
      return;
    }
    if (key === "arrowleft" || key === "arrowright") {
      e.preventDefault(); page.pause();
      page.seek(page.frame + (key === "arrowleft" ? -1 : 1) * (e.shiftKey ? 10 : 1));
      return;
    }
    if (key === " " && e.target.closest("button")) e.target.blur();
    if (plain[key]) { e.preventDefault(); plain[key](); }
  });
}
