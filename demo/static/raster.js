// Pixels of a hole: pure functions over a Uint8Array of width * height, 1 = missing. No DOM, no state.
// A pixel belongs to a shape when its centre (x + 0.5, y + 0.5) does, so that no half-covered pixel ever exists.

const boxOf = (width, height, left, top, right, bottom) => ({
  left: Math.max(0, Math.floor(left)), top: Math.max(0, Math.floor(top)),
  right: Math.min(width, Math.ceil(right)), bottom: Math.min(height, Math.ceil(bottom)),
});

function fillRow(hole, width, y, from, to, value) {
  const start = Math.max(0, Math.ceil(from - 0.5)), end = Math.min(width - 1, Math.floor(to - 0.5));
  if (start <= end) hole.fill(value, y * width + start, y * width + end + 1);
}

// A round brush drawn from (ax, ay) to (bx, by). The shape is convex, so every row of it is one interval.
function fillCapsule(hole, width, height, ax, ay, bx, by, radius, value) {
  const box = boxOf(width, height, Math.min(ax, bx) - radius, Math.min(ay, by) - radius,
    Math.max(ax, bx) + radius, Math.max(ay, by) + radius);
  const length = Math.hypot(bx - ax, by - ay);
  const nx = length ? -(by - ay) / length * radius : 0, ny = length ? (bx - ax) / length * radius : 0;
  const quad = [[ax + nx, ay + ny], [bx + nx, by + ny], [bx - nx, by - ny], [ax - nx, ay - ny]];
  for (let y = box.top; y < box.bottom; y++) {
    const centre = y + 0.5;
    let from = Infinity, to = -Infinity;
    for (const [x, cy] of [[ax, ay], [bx, by]]) {
      const rest = radius * radius - (centre - cy) * (centre - cy);
      if (rest >= 0) { const half = Math.sqrt(rest); from = Math.min(from, x - half); to = Math.max(to, x + half); }
    }
    if (length) {
      for (let i = 0; i < 4; i++) {
        const [x0, y0] = quad[i], [x1, y1] = quad[(i + 1) % 4];
        if ((y0 <= centre) !== (y1 <= centre)) {
          const x = x0 + (centre - y0) * (x1 - x0) / (y1 - y0);
          from = Math.min(from, x); to = Math.max(to, x);
        }
      }
    }
    fillRow(hole, width, y, from, to, value);
  }
  return box;
}

function fillRectangle(hole, width, height, ax, ay, bx, by, value) {
  const left = Math.min(ax, bx), right = Math.max(ax, bx), top = Math.min(ay, by), bottom = Math.max(ay, by);
  const box = boxOf(width, height, left, top, right, bottom);
  for (let y = box.top; y < box.bottom; y++) {
    if (y + 0.5 >= top && y + 0.5 <= bottom) fillRow(hole, width, y, left, right, value);
  }
  return box;
}

// Everything the outline goes round at least once (non-zero winding), so a loop in a freehand line leaves no gap.
function fillPolygon(hole, width, height, points, value) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const box = boxOf(width, height, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
  for (let y = box.top; y < box.bottom; y++) {
    const centre = y + 0.5, crossings = [];
    for (let i = 0; i < points.length; i++) {
      const [x0, y0] = points[i], [x1, y1] = points[(i + 1) % points.length];
      if ((y0 <= centre) !== (y1 <= centre)) {
        crossings.push([x0 + (centre - y0) * (x1 - x0) / (y1 - y0), y1 > y0 ? 1 : -1]);
      }
    }
    crossings.sort((a, b) => a[0] - b[0]);
    let winding = 0;
    for (let i = 0; i + 1 < crossings.length; i++) {
      winding += crossings[i][1];
      if (winding) fillRow(hole, width, y, crossings[i][0], crossings[i + 1][0], value);
    }
  }
  return box;
}

function inverted(hole) {
  const other = new Uint8Array(hole.length);
  for (let i = 0; i < hole.length; i++) other[i] = hole[i] ^ 1;
  return other;
}

// Known islands that the hole encloses become part of it; what touches the border stays known.
function withoutIslands(hole, width, height) {
  const outside = new Uint8Array(hole.length), queue = new Int32Array(hole.length);
  let head = 0, tail = 0;
  const visit = (i) => { if (!hole[i] && !outside[i]) { outside[i] = 1; queue[tail++] = i; } };
  for (let x = 0; x < width; x++) { visit(x); visit((height - 1) * width + x); }
  for (let y = 0; y < height; y++) { visit(y * width); visit(y * width + width - 1); }
  while (head < tail) {
    const i = queue[head++], x = i % width;
    if (x > 0) visit(i - 1);
    if (x < width - 1) visit(i + 1);
    if (i >= width) visit(i - width);
    if (i < hole.length - width) visit(i + width);
  }
  return inverted(outside);
}

// All pixels whose centre is within `radius` of a hole pixel's centre (Meijster's exact distance transform).
function grown(hole, width, height, radius) {
  const far = width + height, up = new Int32Array(hole.length), wide = new Uint8Array(hole.length);
  for (let x = 0; x < width; x++) {
    let gap = far;
    for (let y = 0; y < height; y++) { const i = y * width + x; gap = hole[i] ? 0 : gap + 1; up[i] = gap; }
    gap = far;
    for (let y = height - 1; y >= 0; y--) { const i = y * width + x; gap = hole[i] ? 0 : gap + 1; up[i] = Math.min(up[i], gap); }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const rest = radius * radius - up[y * width + x] ** 2;
      if (rest >= 0) { const reach = Math.floor(Math.sqrt(rest)); wide.fill(1, y * width + Math.max(0, x - reach), y * width + Math.min(width, x + reach + 1)); }
    }
  }
  return wide;
}

const shrunk = (hole, width, height, radius) => inverted(grown(inverted(hole), width, height, radius));

// A snapshot for undo: lengths of runs, starting with a run of known pixels. A painted hole takes a few kB.
function packed(hole) {
  const runs = [];
  for (let at = 0, value = 0; at < hole.length; value ^= 1) {
    const next = hole.indexOf(value ^ 1, at), end = next < 0 ? hole.length : next;
    runs.push(end - at); at = end;
  }
  return Uint32Array.from(runs);
}

const missingIn = (runs) => runs.reduce((sum, run, i) => (i % 2 ? sum + run : sum), 0);

function unpacked(runs, length) {
  const hole = new Uint8Array(length);
  let at = 0, value = 0;
  for (const run of runs) { if (value) hole.fill(1, at, at + run); at += run; value ^= 1; }
  return hole;
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

function pngChunk(name, data) {
  const chunk = new Uint8Array(data.length + 12), view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) chunk[4 + i] = name.charCodeAt(i);
  chunk.set(data, 8);
  view.setUint32(data.length + 8, crc32(chunk.subarray(4, data.length + 8)));
  return chunk;
}

// The hole as a PNG with one bit per pixel (white = missing) of outWidth x outHeight, nearest pixel: pixel i of the
// output is pixel floor((i + 0.5) * width / outWidth) of the hole, in whole numbers so that Python finds the same.
async function holePng(hole, width, height, outWidth, outHeight) {
  const stride = (outWidth + 7) >> 3, rows = new Uint8Array((stride + 1) * outHeight);
  const column = new Int32Array(outWidth);
  for (let x = 0; x < outWidth; x++) column[x] = Math.floor((2 * x + 1) * width / (2 * outWidth));
  for (let y = 0; y < outHeight; y++) {
    const from = Math.floor((2 * y + 1) * height / (2 * outHeight)) * width, to = y * (stride + 1) + 1;
    for (let x = 0; x < outWidth; x++) if (hole[from + column[x]]) rows[to + (x >> 3)] |= 128 >> (x & 7);
  }
  const zlib = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate')));
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, outWidth); view.setUint32(4, outHeight); header[8] = 1;
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), pngChunk('IHDR', header),
    pngChunk('IDAT', new Uint8Array(await zlib.arrayBuffer())), pngChunk('IEND', new Uint8Array(0))], {type: 'image/png'});
}
