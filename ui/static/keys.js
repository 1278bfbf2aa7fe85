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
    j: () => page.shuttle(-1), k: () => page.pause(), l: () => page.shuttle(1),
    pagedown: () => page.jumpIssue(1), pageup: () => page.jumpIssue(-1), f2: () => page.list.rename(page.selected),
    x: () => view.startAim(), u: () => page.cleanUp(), h: () => { page.masksHidden = !page.masksHidden; page.render(); },
    1: () => page.setMode("overlay"), 2: () => page.setMode("cutout"), 3: () => page.setMode("matte"),
    0: () => view.fit(), "+": () => view.zoomBy(1.25), "=": () => view.zoomBy(1.25), "-": () => view.zoomBy(0.8),
    "[": () => page.setRadius(Number(byId("radius").value) - 4), "]": () => page.setRadius(Number(byId("radius").value) + 4),
    "?": () => byId("help-dialog").showModal(),
    arrowup: () => page.jumpAnchor(-1), arrowdown: () => page.jumpAnchor(1),
    home: () => page.seek(page.state.first), end: () => page.seek(page.state.last),
    backspace: () => page.clearPrompt(), delete: () => page.clearPrompt(),
    escape: () => { if (view.proposals) page.find(); else page.stopTracking(); },
  };
  // Keys while a click is aimed by arrows; false for others.
  function aim(e, key) {
    const step = e.shiftKey ? 1 : 12;
    if (key === "escape") view.stopAim();
    else if (key === "enter") view.clickAim(e.shiftKey);
    else if (key.startsWith("arrow")) view.moveAim(step * ((key === "arrowright") - (key === "arrowleft")), step * ((key === "arrowdown") - (key === "arrowup")));
    else return false;
    return true;
  }

  addEventListener("keydown", (e) => {
    if (!page.state || document.querySelector("dialog[open]") || /^(text|number|color)$/.test(e.target.type ?? "") || e.target.id === "frame") return;
    const key = e.key.toLowerCase();
    if (view.aim && aim(e, key)) return e.preventDefault();
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
    if ((key === "arrowup" || key === "arrowdown") && (e.shiftKey || e.altKey)) {
      e.preventDefault();
      const side = key === "arrowup" ? -1 : 1;
      if (e.altKey) page.list.move(page.selected, side); else page.jumpObject(side);
      return;
    }
    if (key === "s" && e.shiftKey) { if (page.selected != null) page.setSolo(page.selected); return; }
    if (key === " " && e.target.closest("button")) e.target.blur();
    if (plain[key]) { e.preventDefault(); plain[key](); }
  });
}
