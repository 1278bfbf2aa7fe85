// The page's pictograms: strokes on a grid of 24.
const PATHS = {
  undo: '<path d="M8 5 4 9l4 4"/><path d="M4 9h10a6 6 0 0 1 0 12h-3"/>',
  redo: '<path d="m16 5 4 4-4 4"/><path d="M20 9H10a6 6 0 0 0 0 12h3"/>',
  plus: '<path d="M12 5v14M5 12h14"/>',
  minus: '<path d="M5 12h14"/>',
  box: '<rect x="4.5" y="6.5" width="15" height="11" rx="1" stroke-dasharray="3.2 2.6"/>',
  brush: '<path d="M20 4 10.5 13.5"/><path d="M10 14c-2.5-1.2-5 .3-5 3 0 1.600-.8 2.300-2 2.600 3 1.400 8 .6 8.500-3.100A2.600 2.600 0 0 0 10 14z"/>',
  eraser: '<path d="m8.500 19.500-4.200-4.200a1.700 1.700 0 0 1 0-2.400l8.600-8.600a1.700 1.700 0 0 1 2.400 0l4.400 4.400a1.700 1.700 0 0 1 0 2.400l-8.400 8.400z"/><path d="m8.500 9 6.500 6.500M8.500 19.500H20"/>',
  gone: '<circle cx="12" cy="12" r="7.5" stroke-dasharray="3.2 2.6"/><path d="m9.500 9.500 5 5M14.500 9.500l-5 5"/>',
  sparkle: '<path d="M11 4c.8 4.800 2.200 6.200 7 7-4.800.8-6.200 2.200-7 7-.8-4.800-2.200-6.200-7-7 4.800-.8 6.200-2.200 7-7z"/><path d="M18.500 16v4M16.500 18h4"/>',
  layers: '<path d="m12 4 8.500 4.500L12 13 3.500 8.500z"/><path d="m3.500 13.500 8.500 4.500 8.500-4.500"/>',
  checker: '<rect x="4" y="4" width="16" height="16" rx="2"/><path class="fill" d="M4 4h5.300v5.300H4zM14.700 4H20v5.300h-5.300zM9.300 9.300h5.400v5.400H9.300zM4 14.700h5.300V20H4zM14.700 14.700H20V20h-5.300z"/>',
  matte: '<circle cx="12" cy="12" r="8"/><path class="fill" d="M12 4a8 8 0 0 1 0 16z"/>',
  fit: '<path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"/>',
  track: '<circle cx="5" cy="17" r="2"/><path d="M7.500 16C13 14.500 11 8 17 7"/><path d="m14.500 4.500 3.500 2.300-2.500 3.300"/>',
  down: '<path d="m7 10 5 5 5-5"/>',
  pause: '<path d="M9 6v12M15 6v12"/>',
  stop: '<rect class="fill" x="7" y="7" width="10" height="10" rx="1.500"/>',
  play: '<path class="fill" d="M8 5.500v13l11-6.500z"/>',
  previous: '<path d="m14.500 6-6 6 6 6"/>',
  next: '<path d="m9.500 6 6 6-6 6"/>',
  anchorback: '<path d="m18 7-5 5 5 5"/><path d="m6.500 9 3 3-3 3-3-3z"/>',
  anchorforth: '<path d="m6 7 5 5-5 5"/><path d="m17.500 9 3 3-3 3-3-3z"/>',
  flag: '<path d="M6 20V5h11l-2.500 4 2.500 4H6"/>',
  download: '<path d="M12 4v11m-4.500-4.500L12 15l4.500-4.500M5 19.500h14"/>',
  theme: '<circle cx="12" cy="12" r="4"/><path d="M12 3v2M12 19v2M3 12h2M19 12h2M5.600 5.600 7 7M17 17l1.400 1.400M5.600 18.400 7 17M17 7l1.400-1.400"/>',
  help: '<path d="M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400"/><circle class="fill" cx="12" cy="17.500" r="1"/>',
  close: '<path d="m6 6 12 12M18 6 6 18"/>',
  eye: '<path d="M2.500 12C5 7.500 8.300 5.500 12 5.500s7 2 9.500 6.500c-2.500 4.500-5.800 6.500-9.500 6.500S5 16.500 2.500 12z"/><circle cx="12" cy="12" r="2.800"/>',
  eyeoff: '<path d="M4 4l16 16M9.900 5.700A9.500 9.500 0 0 1 12 5.500c3.700 0 7 2 9.500 6.500a17 17 0 0 1-2.800 3.700M6 7.300A15.500 15.500 0 0 0 2.500 12c2.500 4.500 5.800 6.500 9.500 6.500 1.300 0 2.500-.3 3.700-.8"/>',
  clean: '<path d="M14 4 9 13M7.500 12l5.500 3-2.500 5-7-3.500z"/><path d="M17 15h3M16 18.500h2"/>',
  solo: '<circle cx="12" cy="12" r="6.500"/><circle class="fill" cx="12" cy="12" r="2.500"/>',
  follow: '<circle cx="12" cy="12" r="3"/><path d="M12 3v4M12 17v4M3 12h4M17 12h4"/>',
  zoomin: '<circle cx="10.500" cy="10.500" r="6"/><path d="m15 15 5 5M10.500 8v5M8 10.500h5"/>',
  zoomout: '<circle cx="10.500" cy="10.500" r="6"/><path d="m15 15 5 5M8 10.500h5"/>',
  lock: '<rect x="5.500" y="11" width="13" height="9" rx="2"/><path d="M8.500 11V8a3.500 3.500 0 0 1 7 0v3"/>',
  unlock: '<rect x="5.500" y="11" width="13" height="9" rx="2"/><path d="M8.500 11V8a3.500 3.500 0 0 1 6.700-1.400"/>',
  trash: '<path d="M5 7h14M10 7V5h4v2M7 7l.8 12h8.400L17 7"/>',
  camera: '<path d="M4 8.500h3l1.500-2.500h7L17 8.500h3a1 1 0 0 1 1 1V18a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V9.500a1 1 0 0 1 1-1z"/><circle cx="12" cy="13.500" r="3.500"/>',
  record: '<circle class="fill" cx="12" cy="12" r="6"/>',
  film: '<rect x="3" y="5" width="18" height="14" rx="2"/><path d="M7.500 5v14M16.500 5v14M3 9.700h4.500M3 14.300h4.500M16.500 9.700H21M16.500 14.300H21"/>',
};

export function icon(name) {
  return `<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">${PATHS[name]}</svg>`;
}

export function setIcon(element, name) {
  if (element.dataset.shown === name) return;
  element.dataset.shown = name;
  element.innerHTML = icon(name);
}

export function fillIcons(root = document) {
  for (const element of root.querySelectorAll("[data-icon]")) setIcon(element, element.dataset.icon);
}
