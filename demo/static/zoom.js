// Zoom and pan of one layer inside a stage, by CSS transform only: strokes never have to be redrawn for it.

const LARGEST_ZOOM = 32;      // one proxy pixel as wide as a fingertip
const PIXELS_FROM_ZOOM = 3;   // from here on single pixels are shown as squares, not smoothed

function makeZoom(stage, layer, changed) {
  let width = 0, height = 0, scale = 1, left = 0, top = 0, fitted = true;
  const fitScale = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const place = () => {
    const w = width * scale, h = height * scale, cw = stage.clientWidth, ch = stage.clientHeight;
    left = w <= cw ? (cw - w) / 2 : Math.min(0, Math.max(cw - w, left));
    top = h <= ch ? (ch - h) / 2 : Math.min(0, Math.max(ch - h, top));
    layer.style.transform = 'translate(' + left + 'px,' + top + 'px) scale(' + scale + ')';
    layer.classList.toggle('pixels', scale * devicePixelRatio >= PIXELS_FROM_ZOOM);
    changed(scale, fitted);
  };
  const zoom = {
    show(w, h) { width = w; height = h; layer.style.width = w + 'px'; layer.style.height = h + 'px'; zoom.fit(); },
    fit() { if (!width) return; fitted = true; scale = fitScale(); left = top = 0; place(); },
    refit() { if (!width) return; if (fitted || scale < fitScale()) zoom.fit(); else place(); },
    // Zooms by `factor` so that the picture's point under (clientX, clientY) stays under it.
    at(clientX, clientY, factor) {
      if (!width) return;
      const box = stage.getBoundingClientRect(), x = clientX - box.left, y = clientY - box.top;
      const wanted = Math.min(LARGEST_ZOOM, scale * factor), least = fitScale();
      if (wanted <= least * 1.001) { zoom.fit(); return; }
      left = x - (x - left) * wanted / scale; top = y - (y - top) * wanted / scale;
      scale = wanted; fitted = false; place();
    },
    by(factor) { const box = stage.getBoundingClientRect(); zoom.at(box.left + box.width / 2, box.top + box.height / 2, factor); },
    move(dx, dy) { if (!width) return; left += dx; top += dy; place(); },
    // The picture's point under a pointer, in picture pixels (not rounded).
    point(event) {
      const box = layer.getBoundingClientRect();
      return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
    },
    get scale() { return scale; },
    // Where it looks, to make another stage of the same size look there too.
    get view() { return {scale, left, top, fitted}; },
    set view(other) { if (!width) return; ({scale, left, top, fitted} = other); place(); },
    get fitted() { return fitted; },
  };
  // A trackpad pinch arrives as Ctrl + wheel. A plain wheel scrolls the page until the picture is zoomed in.
  stage.addEventListener('wheel', (event) => {
    if (!width || (!event.ctrlKey && !event.metaKey && fitted)) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoom.at(event.clientX, event.clientY, Math.exp(-event.deltaY / 300));
    else zoom.move(-event.deltaX, -event.deltaY);
  }, {passive: false});
  new ResizeObserver(() => zoom.refit()).observe(stage);
  return zoom;
}

// Two fingers zoom and pan together; returns true while it has the pointers.
function makePinch(zoom) {
  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y))};
  };
  return {
    down(event) { if (event.pointerType === 'touch') fingers.set(event.pointerId, {x: event.clientX, y: event.clientY}); return fingers.size > 1; },
    move(event) {
      if (!fingers.has(event.pointerId)) return false;
      if (fingers.size < 2) { fingers.set(event.pointerId, {x: event.clientX, y: event.clientY}); return false; }
      const before = spread();
      fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
      const after = spread();
      zoom.move(after.x - before.x, after.y - before.y);
      zoom.at(after.x, after.y, after.far / before.far);
      return true;
    },
    up(event) { fingers.delete(event.pointerId); return fingers.size > 0; },
    get active() { return fingers.size > 1; },
  };
}
