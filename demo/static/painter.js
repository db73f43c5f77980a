// The painter: the photo's proxy, the hole painted over it, and nothing sent until flush() asks for the hole.
// Gradio runs this text as a function of (element, trigger, props, server, upload, watch) after raster.js and zoom.js.

const CLICK = 5;                  // a pointer that moved fewer screen pixels than this has clicked, not dragged (our choice)
const CLOSE = 12;                 // screen pixels round a lasso's first corner that close it: a fingertip's accuracy
const HISTORY_STEPS = 200, HISTORY_BYTES = 24e6;   // a painted step takes 2-20 kB; the bytes bound noise-like masks
const ARROW = 8, FAR_ARROW = 40;  // screen pixels per arrow key, with Shift
const PATIENCE = 60000;           // ms without an answer from the server before the page says so
const EDGE = 0xff3a1bd0, BODY = 0x9c5e3ff4, STRIPE = 0x9c7c63ff;   // ABGR: rose, with stripes so that it shows on roses too
const KEPT = 'asuka-demo-painter';
const DOT = 5;                    // screen pixels: radius of a point that was clicked
const PAST_PHOTOS = 12;           // photos that undo leads back to; each keeps its strokes, its pixels stay on the server

const root = element.querySelector('.mp'), $ = (selector) => root.querySelector(selector), $$ = (selector) => [...root.querySelectorAll(selector)];
const stage = $('.mp-stage'), layer = $('.mp-layer'), ring = $('.mp-ring'), message = $('.mp-message');
const photo = $('.mp-photo'), overlay = $('.mp-hole'), shape = $('.mp-shape');
const photoPen = photo.getContext('2d'), overlayPen = overlay.getContext('2d');
const words = props.texts[navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'];
const say = (key, values) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

let tool = 'brush', effect = 'add', flipped = false, sizeStep = 50;
let current = null, width = 0, height = 0, hole = null, steps = [], at = -1, serial = 0, patience = 0;
let picks = null, pointInside = true, picking = null, past = [], future = [];
let floating = false, stroke = null, lasso = null, pan = null, spaceHeld = false, keyboard = null, lastPoint = null, asked = null;

// ---- words, buttons, sizes ------------------------------------------------------------------------------------------

function label(node, text, key) {
  const shown = key ? text + ' (' + key + ')' : text;
  node.setAttribute('aria-label', text); node.title = shown;
  if (key) node.setAttribute('aria-keyshortcuts', key);
}
$$('[data-t]').forEach((node) => { node.textContent = words[node.dataset.t]; });
$$('[data-label]').forEach((node) => node.setAttribute('aria-label', words[node.dataset.label]));
$$('[data-tool]').forEach((node) => label(node, words[node.dataset.tool], node.dataset.key));
label($('[data-do=undo]'), words.undo, 'Control+Z'); label($('[data-do=redo]'), words.redo, 'Control+Shift+Z');
label($('[data-do=peek]'), words.peek, 'O'); label($('[data-do=zoomIn]'), words.zoomIn, '+');
label($('[data-do=zoomOut]'), words.zoomOut, '-'); label($('[data-do=fit]'), words.fit, '0'); label($('[data-do=newPhoto]'), words.newPhoto);
$('.mp-limits').textContent = say('limits', {megabytes: props.max_megabytes, megapixels: props.max_megapixels});
$('.mp-spin').animate([{transform: 'rotate(0)'}, {transform: 'rotate(1turn)'}], {duration: 900, iterations: Infinity});
$('.mp-samples').hidden = !props.samples.length;
for (const sample of props.samples) {
  const button = document.createElement('button'), image = document.createElement('img');
  const title = words['sample_' + sample.name] || sample.title;
  button.type = 'button'; button.title = title + ' - ' + sample.credit; button.dataset.sample = sample.name;
  image.src = sample.thumbnail; image.alt = title;
  button.append(image); button.addEventListener('click', () => ask({sample: sample.name, name: sample.name}, words.opening));
  $('.mp-thumbs').append(button);
}

function tell(text) { message.textContent = text || ''; message.classList.toggle('shown', !!text); }
function busy(text) { root.dataset.busy = text ? 'on' : ''; $('.mp-busy-text').textContent = text || ''; }
const longest = () => Math.max(width, height, 64);
const radius = () => Math.exp(Math.log(1.5) + (Math.log(longest() / 5) - Math.log(1.5)) * sizeStep / 100);
const subtracting = () => (tool === 'eraser' || (tool !== 'brush' && effect === 'subtract')) !== flipped;

function refresh() {
  root.dataset.tool = tool; root.dataset.effect = subtracting() ? 'subtract' : 'add';
  $$('[data-tool].mp-tool').forEach((node) => node.setAttribute('aria-pressed', node.dataset.tool === tool));
  $$('[data-effect].mp-text').forEach((node) => node.setAttribute('aria-pressed', node.dataset.effect === effect));
  $$('[data-point]').forEach((node) => node.setAttribute('aria-pressed', (node.dataset.point === 'in') === pointInside));
  $('[data-do=nextThing]').disabled = !picks;
  $$('[data-for]').forEach((node) => node.classList.toggle('shown', node.dataset.for.split(' ').includes(tool)));
  const dot = Math.max(3, Math.min(20, 2 + sizeStep / 5.5));
  $('.mp-dot i').style.cssText = 'width:' + dot + 'px;height:' + dot + 'px';
  $('.mp-size input').value = sizeStep;
  $('[data-do=undo]').disabled = at <= 0 && !past.length; $('[data-do=redo]').disabled = at >= steps.length - 1 && !future.length;
  $('.mp-hint').textContent = tool === 'select' && !props.sam ? words.hint_select + ' ' + words.howToSam : words['hint_' + tool];
  placeRing();
}

function describe() {
  if (!hole) return;
  const count = missingIn(steps[at].runs);
  const share = 100 * count / hole.length, shown = share > 0 && share < 0.1 ? '< 0.1' : share.toFixed(share < 10 ? 1 : 0);
  const scaled = current.width === width ? '' : ' · ' + say('proxy', {width, height});
  $('.mp-info').textContent = current.width + ' × ' + current.height + scaled + ' · ' + [count ? say('share', {share: shown}) : words.nothing, ...current.notes].join(' · ');
  root.dataset.holePixels = count;
}

const zoom = makeZoom(stage, layer, (scale, fitted) => {
  if (!scale) return;   // in a tab that is not shown
  $('.mp-percent').textContent = fitted ? words.fit : Math.round(scale * 100 * width / (current ? current.width : width)) + ' %';
  shape.querySelector('circle').setAttribute('r', CLOSE / 2 / scale); drawPicks(); placeRing();
});
const pinch = makePinch(zoom);

function placeRing() {
  const on = hole && !floating && (tool === 'brush' || tool === 'eraser') && lastPoint && !pan && !spaceHeld && root.dataset.state === 'ready';
  root.dataset.ring = on ? 'on' : ''; ring.style.display = on ? 'block' : 'none';
  if (!on) return;
  const side = Math.max(4, 2 * radius() * zoom.scale), box = layer.getBoundingClientRect(), frame = stage.getBoundingClientRect();
  const x = box.left - frame.left + lastPoint[0] * zoom.scale - stage.clientLeft, y = box.top - frame.top + lastPoint[1] * zoom.scale - stage.clientTop;
  ring.style.width = ring.style.height = side + 'px';
  ring.style.transform = 'translate(' + (x - side / 2) + 'px,' + (y - side / 2) + 'px)';
}

function sizeStage() {
  if (!width) return;
  stage.style.height = Math.round(Math.max(200, Math.min(innerHeight * 0.7, stage.clientWidth * height / width))) + 'px';
}
new ResizeObserver(() => { sizeStage(); zoom.refit(); }).observe(root);

// ---- the hole, its picture on the overlay, its history --------------------------------------------------------------

// Pointers may report a thousand times a second, the screen shows sixty: the overlay is painted once a frame.
let unseen = null;
function show(box) {
  if (!unseen) requestAnimationFrame(paintUnseen);
  unseen = unseen ? {left: Math.min(unseen.left, box.left), top: Math.min(unseen.top, box.top),
    right: Math.max(unseen.right, box.right), bottom: Math.max(unseen.bottom, box.bottom)} : box;
}
function paintUnseen() {
  const box = unseen;
  unseen = null;
  if (!box || !hole) return;
  const left = Math.max(0, box.left - 1), top = Math.max(0, box.top - 1);
  const right = Math.min(width, box.right + 1), bottom = Math.min(height, box.bottom + 1);
  if (right <= left || bottom <= top) return;
  const image = overlayPen.createImageData(right - left, bottom - top), pixels = new Uint32Array(image.data.buffer);
  const bits = hole, lastRow = height - 1, lastColumn = width - 1;
  let out = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left, i = y * width + left; x < right; x++, i++, out++) {
      if (!bits[i]) continue;
      const inner = (x === 0 || bits[i - 1]) && (x === lastColumn || bits[i + 1])
        && (y === 0 || bits[i - width]) && (y === lastRow || bits[i + width]);
      pixels[out] = inner ? ((x + y) % 12 < 3 ? STRIPE : BODY) : EDGE;
    }
  }
  overlayPen.putImageData(image, left, top);
}
const showAll = () => show({left: 0, top: 0, right: width, bottom: height});

function commit(extra) {
  steps.length = at + 1; picks = extra.picks || null; future = [];
  steps.push({runs: packed(hole), ...extra});
  let bytes = 0, first = steps.length;
  while (first > 0 && steps.length - first < HISTORY_STEPS && (bytes += steps[first - 1].runs.byteLength) < HISTORY_BYTES) first--;
  steps.splice(0, Math.min(first, steps.length - 1));
  at = steps.length - 1;
  tell(''); drawPicks(); describe(); refresh(); keep();
}
function arrive() {
  hole = unpacked(steps[at].runs, width * height); picks = steps[at].picks || null;
  showAll(); drawPicks(); describe(); refresh(); keep();
}
function travel(by) {
  if (!hole || root.dataset.busy) return;
  if (at + by >= 0 && at + by < steps.length) { at += by; arrive(); } else leap(by);
}
// Beyond the first step lies the photo that this one was made from, beyond the last the one that was made of it.
const scene = () => ({current, width, height, steps, at});
async function leap(by) {
  const [from, to] = by < 0 ? [past, future] : [future, past];
  if (!from.length) return;
  const next = from.pop();
  to.push(scene()); busy(words.opening);
  try { await place({...next.current, proxy_width: next.width, proxy_height: next.height}); steps = next.steps; at = next.at; arrive(); }
  catch (problem) { from.push(next); to.pop(); tell(say('notShown', {problem: problem.message || problem})); }
  busy(''); refresh();
}
function replace(next, extra) { hole = next; showAll(); commit(extra); }

// ---- kept over a reload of the page, in this browser tab only --------------------------------------------------------

let keeping = 0;
function keep() {
  clearTimeout(keeping);
  keeping = setTimeout(async () => {
    if (stroke) keep();   // the next stroke has begun: it must not end for this
    else if (current) { try { sessionStorage.setItem(KEPT, JSON.stringify(await painted())); } catch { /* storage may be full or forbidden: only comfort is lost */ } }
  }, 400);
}
function forget() { clearTimeout(keeping); try { sessionStorage.removeItem(KEPT); } catch { /* forbidden: nothing was kept either */ } }

// ---- photos -----------------------------------------------------------------------------------------------------------

function ask(value, text, event = 'photo') {
  serial += 1; busy(text); tell('');
  clearTimeout(patience); patience = setTimeout(() => { busy(''); endPicking(); tell(words.noAnswer); }, PATIENCE);
  props.value = {...blank(), ...value, serial};
  trigger(event);
}
const blank = () => ({serial, photo: null, proxy: null, mask: null, sample: null, name: '', width: 0, height: 0, proxy_width: 0, proxy_height: 0, hole: null, mask_flipped: null, mask_hole: null, clicks: [], border: [], selected_by: '', notes: [], message: ''});
const fileData = (file, sent) => ({path: sent.path, url: sent.url, orig_name: file.name, size: file.size, mime_type: file.type, is_stream: false, meta: {_type: 'gradio.FileData'}});

async function send(file) {
  if (file.size > props.max_megabytes * 1e6) { tell(say('tooBig', {name: file.name, size: (file.size / 1e6).toFixed(1), megabytes: props.max_megabytes})); return null; }
  if (!file.size) { tell(say('emptyFile', {name: file.name})); return null; }
  busy(say('uploading', {size: (file.size / 1e6).toFixed(1)}));
  try { return fileData(file, await upload(file)); } catch (problem) { busy(''); tell(say('notSent', {name: file.name, problem: problem.message || problem})); return null; }
}
async function openPhoto(file) {
  if (!file) return;
  const sent = await send(file);
  if (sent) ask({photo: sent, name: file.name}, words.opening);
}

async function place(value) {   // the photo on the stage, nothing painted yet
  const image = new Image();
  image.src = value.proxy.url; await image.decode();
  current = {photo: value.photo, proxy: value.proxy, name: value.name, width: value.width, height: value.height, notes: value.notes || []};
  width = value.proxy_width; height = value.proxy_height;
  for (const canvas of [photo, overlay]) { canvas.width = width; canvas.height = height; }
  photoPen.drawImage(image, 0, 0);
  shape.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
  hole = new Uint8Array(width * height); steps = []; at = -1; lasso = stroke = picks = null; drawShape();
  root.dataset.state = 'ready'; root.dataset.picture = 'on';
  sizeStage(); zoom.show(width, height);
}
// `made`: from the photo that is here (a result of it, or its larger canvas), so undo leads back to that.
async function take(value, made) {
  const before = made && current ? scene() : null;
  await place(value);
  past = before ? [...past, before].slice(-PAST_PHOTOS) : []; future = [];
  commit({});
  if (made && value.mask_hole) { hole = await pixelsOf(value.mask_hole); showAll(); steps = []; at = -1; commit({mask: value.mask, flipped: false}); }
}

function startOver() {
  forget(); endPicking(); current = hole = picks = null; steps = []; at = -1; past = []; future = []; serial += 1; lasso = stroke = null; keyboard = lastPoint = null;
  root.dataset.state = 'empty'; root.dataset.picture = ''; root.dataset.holePixels = ''; stage.style.height = '';
  busy(''); tell(''); refresh();
}

async function pixelsOf(base64) {   // a PNG of the proxy's size -> 0/1 per pixel
  const image = new Image();
  image.src = 'data:image/png;base64,' + base64; await image.decode();
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0, width, height);
  const data = pen.getImageData(0, 0, width, height).data, found = new Uint8Array(width * height);
  for (let i = 0; i < found.length; i++) found[i] = data[4 * i] > 127 ? 1 : 0;
  return found;
}

async function heard() {
  const value = props.value;
  if (!value || (value.serial >= 0 && value.serial !== serial)) return;   // a negative serial: the server's own wish
  if (!value.message && !value.proxy && !value.mask_hole) return;
  clearTimeout(patience);
  try {
    if (value.message) { endPicking(); tell(value.message); }
    else if (value.selected_by) await takeSelection(value);
    else if (value.mask_hole && !value.proxy) await askPolarity(value);
    else await take(value, value.serial < 0 || !!value.mask_hole);
  } catch (problem) { tell(say('notShown', {problem: problem.message || problem})); }
  busy('');
}

async function restore() {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(KEPT)); } catch { /* forbidden or damaged: start empty */ }
  if (!kept || !kept.proxy || props.value) return;
  busy(words.opening);
  try { await take(kept); if (kept.hole) replace(await pixelsOf(kept.hole), {}); } catch { startOver(); }
  busy('');
}

// ---- a mask file: its size is fitted on the server, its polarity asked here ------------------------------------------

async function openMask(file) {
  if (!file || !current) return;
  const sent = await send(file);
  if (sent) ask({...current, proxy: null, mask: sent}, words.opening);
}
async function askPolarity(value) {
  asked = {mask: value.mask, white: await pixelsOf(value.mask_hole), note: value.mask_note};
  const share = asked.white.reduce((sum, bit) => sum + bit, 0) / asked.white.length;
  for (const [missing, part] of [['white', share], ['black', 1 - share]]) {
    const button = $('[data-missing=' + missing + ']'), canvas = button.querySelector('canvas'), shown = missing === 'white' ? asked.white : inverted(asked.white);
    canvas.width = width; canvas.height = height;
    const pen = canvas.getContext('2d'); pen.drawImage(photo, 0, 0);
    const image = pen.getImageData(0, 0, width, height);
    for (let i = 0; i < shown.length; i++) if (shown[i]) { image.data[4 * i] = 244; image.data[4 * i + 1] = 63; image.data[4 * i + 2] = 94; }
    pen.putImageData(image, 0, 0);
    button.querySelector('span').textContent = say(missing === 'white' ? 'askWhite' : 'askBlack', {share: (100 * part).toFixed(part < 0.1 ? 1 : 0)});
    button.classList.toggle('likely', (missing === 'black') === !!value.mask_flipped);
  }
  $('.mp-ask-note').textContent = value.mask_note || '';
  root.dataset.ask = 'on'; $('.mp-ask .likely').focus();
}
function answerPolarity(missing) {
  root.dataset.ask = '';
  replace(missing === 'white' ? asked.white : inverted(asked.white), {mask: asked.mask, flipped: missing === 'black'});
  asked = null; stage.focus();
}

// ---- click to select: the points go to the server, the outline of the thing comes back --------------------------------

function drawPicks() {
  const points = picks ? picks.points : [];
  $('.mp-picks').replaceChildren(...points.map((point) => {
    const dot = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
    dot.setAttribute('cx', point.x); dot.setAttribute('cy', point.y); dot.setAttribute('r', DOT / zoom.scale);
    dot.classList.toggle('out', !point.inside); return dot;
  }));
}
function endPicking() { picking = null; root.dataset.picking = ''; }
function pick(point) {
  if (picking) return;
  const before = picks || {base: steps[at].runs, points: []};
  picking = {step: steps[at], picks: {base: before.base, points: [...before.points, {x: point[0], y: point[1], inside: pointInside !== flipped}]}};
  root.dataset.picking = 'on';
  ask({proxy: current.proxy, clicks: picking.picks.points}, '', 'pick');
}
async function takeSelection(value) {
  const found = await pixelsOf(value.mask_hole), asked = picking;
  endPicking();
  if (!asked || steps[at] !== asked.step) return;   // painted meanwhile: the outline belongs to what was there before
  const next = unpacked(asked.picks.base, width * height);
  for (let i = 0; i < next.length; i++) next[i] |= found[i];
  root.dataset.selectedBy = value.selected_by;
  replace(next, {picks: asked.picks});
}

// ---- a larger canvas ----------------------------------------------------------------------------------------------------

function openExtend() { root.dataset.extend = 'on'; $('[data-side="1"]').focus(); }
function closeExtend() { root.dataset.extend = ''; stage.focus(); }
function extendCanvas() {
  const border = [...$$('[data-side]')].sort((a, b) => a.dataset.side - b.dataset.side).map((node) => node.value);
  closeExtend();
  ask({photo: current.photo, name: current.name, border}, words.opening, 'extend');
}

// ---- what the server gets ---------------------------------------------------------------------------------------------

const base64 = (blob) => new Promise((done, failed) => { const reader = new FileReader(); reader.onload = () => done(reader.result.split(',')[1]); reader.onerror = () => failed(reader.error); reader.readAsDataURL(blob); });

async function painted() {
  const step = steps[at], value = {...blank(), ...current, proxy_width: width, proxy_height: height};
  if (step.mask) { value.mask = step.mask; value.mask_flipped = step.flipped; }   // untouched since: its own resolution counts
  value.hole = await base64(await holePng(hole, width, height, width, height));
  return value;
}
// Ends what is being drawn and hands over all that is painted.
async function flush() {
  if (stroke) finish();
  if (lasso && lasso.points.length > 2) closeLasso();
  return current ? painted() : blank();
}
root.flush = flush;
// For Run: the hole as flush() gives it, or words on the page and an error that stops the event.
root.flushToRun = async () => {
  const value = await flush(), count = hole ? missingIn(steps[at].runs) : 0;
  const missing = !current ? 'needPhoto' : !count ? 'needHole' : count === hole.length ? 'needKnown' : '';
  if (missing) { tell(words[missing]); root.scrollIntoView({block: 'nearest'}); throw new Error(words[missing]); }
  tell(''); return value;
};

async function saveMask() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await holePng(hole, width, height, current.width, current.height));
  link.download = (current.name || 'photo').replace(/\.[^.]*$/, '') + '-hole.png'; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- drawing ------------------------------------------------------------------------------------------------------------

function drawShape(rubber) {
  const points = stroke && stroke.kind === 'rectangle' ? corners(stroke.from, stroke.to) : lasso ? [...lasso.points, ...(rubber ? [rubber] : [])] : [];
  const path = points.length > 1 ? 'M' + points.map((p) => p[0].toFixed(2) + ' ' + p[1].toFixed(2)).join('L') + (stroke && stroke.kind === 'rectangle' ? 'Z' : '') : '';
  $('.mp-shade').setAttribute('d', path); $('.mp-line').setAttribute('d', path);
  const first = lasso ? lasso.points[0] : null, dot = shape.querySelector('circle');
  dot.style.display = first ? '' : 'none';
  if (first) { dot.setAttribute('cx', first[0]); dot.setAttribute('cy', first[1]); }
}
const corners = (a, b) => [[a[0], a[1]], [b[0], a[1]], [b[0], b[1]], [a[0], b[1]]];
const near = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) * zoom.scale;

function begin(point) {
  const value = subtracting() ? 0 : 1;
  if (tool === 'brush' || tool === 'eraser') {
    stroke = {kind: 'brush', value, radius: radius(), last: point};
    show(fillCapsule(hole, width, height, ...point, ...point, stroke.radius, value));
  } else if (tool === 'rectangle') stroke = {kind: 'rectangle', value, from: point, to: point};
  else if (tool === 'select') { pick(point); }
  else if (tool === 'lasso') {
    const fresh = !lasso;
    if (fresh) lasso = {points: [], value};
    stroke = {kind: 'lasso', from: point, fresh, free: false};
  }
}
function extend(point) {
  if (!stroke) { if (lasso) drawShape(point); return; }
  if (stroke.kind === 'brush') {
    show(fillCapsule(hole, width, height, ...stroke.last, ...point, stroke.radius, stroke.value)); stroke.last = point;
  } else if (stroke.kind === 'rectangle') { stroke.to = point; drawShape(); }
  else {
    if (!stroke.free && near(stroke.from, point) >= CLICK) { stroke.free = true; lasso.points.push(stroke.from); }
    if (stroke.free) lasso.points.push(point);
    drawShape(point);
  }
}
function finish() {
  const done = stroke; stroke = null;
  if (!done) return;
  if (done.kind === 'brush') commit({});
  else if (done.kind === 'rectangle') {
    drawShape();
    if (near(done.from, done.to) >= CLICK) { show(fillRectangle(hole, width, height, ...done.from, ...done.to, done.value)); commit({}); }
  } else if (done.free && done.fresh) closeLasso();
  else if (!done.free) {
    if (lasso.points.length > 2 && near(done.from, lasso.points[0]) < CLOSE) closeLasso();
    else { lasso.points.push(done.from); drawShape(done.from); }
  }
}
function closeLasso() {
  const {points, value} = lasso;
  lasso = null; drawShape();
  if (points.length > 2) { show(fillPolygon(hole, width, height, points, value)); commit({}); }
}
function abandon() {   // Escape, or a second finger: the picture is as it was before the stroke
  const had = stroke || lasso;
  if (stroke && stroke.kind === 'brush') { hole = unpacked(steps[at].runs, width * height); showAll(); }
  stroke = lasso = null; drawShape();
  return had;
}

// ---- pointers -----------------------------------------------------------------------------------------------------------

stage.addEventListener('pointerdown', (event) => {
  if (!hole || event.target.closest('.mp-ask, .mp-float') || root.dataset.busy || picking) return;
  stage.focus({preventScroll: true}); $('.mp-menu').open = false;
  if (pinch.down(event)) { abandon(); return; }
  try { stage.setPointerCapture(event.pointerId); } catch { /* the pointer has gone already */ }
  keyboard = null; lastPoint = zoom.point(event);
  if (event.button === 1 || spaceHeld || tool === 'pan') { pan = [event.clientX, event.clientY]; root.dataset.panning = 'on'; placeRing(); event.preventDefault(); return; }
  flipped = event.altKey || event.button === 2 || !!(event.buttons & 32);   // 32: the eraser end of a pen
  refresh(); begin(lastPoint); root.dataset.stroke = 'on'; event.preventDefault();
});
stage.addEventListener('pointermove', (event) => {
  if (!hole) return;
  if (pinch.move(event)) return;
  if (pan) { zoom.move(event.clientX - pan[0], event.clientY - pan[1]); pan = [event.clientX, event.clientY]; return; }
  if (stroke || lasso) {
    const each = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const moved of each.length ? each : [event]) extend(zoom.point(moved));
  }
  lastPoint = zoom.point(event);
  placeRing();
});
function lift(event) {
  pinch.up(event); root.dataset.stroke = '';
  if (pan) { pan = null; root.dataset.panning = ''; placeRing(); return; }
  if (event.type === 'pointercancel') abandon(); else finish();
  if (flipped) { flipped = false; refresh(); }
}
stage.addEventListener('pointerup', lift);
stage.addEventListener('pointercancel', lift);
const float = $('.mp-float');   // its own arrow instead of the tool's ring
float.addEventListener('pointerenter', () => { floating = !stroke; placeRing(); });
float.addEventListener('pointerleave', () => { floating = false; placeRing(); });
stage.addEventListener('pointerleave', () => { if (!stroke) { lastPoint = null; placeRing(); } });
stage.addEventListener('dblclick', () => { if (lasso) closeLasso(); });
stage.addEventListener('contextmenu', (event) => { if (hole) event.preventDefault(); });

// ---- keyboard -----------------------------------------------------------------------------------------------------------

function arrow(event) {
  const by = (event.shiftKey ? FAR_ARROW : ARROW) / zoom.scale, [dx, dy] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  keyboard = keyboard || lastPoint || [width / 2, height / 2];
  keyboard = [Math.min(width, Math.max(0, keyboard[0] + dx * by)), Math.min(height, Math.max(0, keyboard[1] + dy * by))];
  lastPoint = keyboard; extend(keyboard); placeRing();
}
function press() {   // Enter: put the tool down at the keyboard's point, or lift it
  if (!keyboard) { keyboard = lastPoint = [width / 2, height / 2]; placeRing(); return; }
  if (stroke) finish(); else if (!picking) { begin(keyboard); if (tool === 'lasso') finish(); }
}
const keys = {
  b: () => choose('brush'), e: () => choose('eraser'), r: () => choose('rectangle'), l: () => choose('lasso'), s: () => choose('select'), h: () => choose('pan'),
  '[': () => resize(-4), ']': () => resize(4), '+': () => zoom.by(1.25), '=': () => zoom.by(1.25), '-': () => zoom.by(0.8), 0: () => zoom.fit(),
};
function choose(name) { if (lasso) closeLasso(); stroke = null; tool = name; refresh(); drawShape(); }
function resize(by) { sizeStep = Math.max(0, Math.min(100, sizeStep + by)); refresh(); }

function inDialog(dialog, event) {   // Tab stays inside, Escape leaves, Enter in a field agrees
  const extending = dialog.classList.contains('mp-extend');
  if (event.key === 'Escape') { if (extending) closeExtend(); else act.cancelMask(); }
  else if (event.key === 'Enter' && event.target.matches('input')) extendCanvas();
  else if (event.key === 'Tab') {
    const stops = [...dialog.querySelectorAll('button, input')], next = stops.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1);
    stops.at(next % stops.length).focus();
  } else return;
  event.preventDefault();
}
root.addEventListener('keydown', (event) => {
  const dialog = root.dataset.ask ? $('.mp-ask:not(.mp-extend)') : root.dataset.extend ? $('.mp-extend') : null;
  if (dialog) { inDialog(dialog, event); return; }
  if (!hole) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, onStage = event.target === stage;
  if (event.ctrlKey || event.metaKey) {
    if (key === 'z' || key === 'y') { travel(key === 'y' || event.shiftKey ? 1 : -1); event.preventDefault(); }
    return;
  }
  if (key === 'Escape' && ($('.mp-menu').open || abandon())) { $('.mp-menu').open = false; event.preventDefault(); return; }
  if (key === 'o') { root.dataset.peek = 'on'; return; }
  if (keys[key] && !event.altKey) { keys[key](); event.preventDefault(); return; }
  if (!onStage) return;
  if (key.startsWith('Arrow')) { arrow(event); event.preventDefault(); }
  else if (key === 'Enter') { if (lasso && keyboard && lasso.points.length > 2 && near(keyboard, lasso.points.at(-1)) < 1) closeLasso(); else if (lasso && !keyboard) closeLasso(); else press(); event.preventDefault(); }
  else if (key === 'Backspace' && lasso) { lasso.points.pop(); if (!lasso.points.length) lasso = null; drawShape(keyboard || lastPoint); event.preventDefault(); }
  else if (key === ' ') { spaceHeld = true; root.dataset.panning = 'on'; placeRing(); event.preventDefault(); }
});
root.addEventListener('keyup', (event) => {
  if (event.key.toLowerCase() === 'o') root.dataset.peek = '';
  if (event.key === ' ') { spaceHeld = false; root.dataset.panning = ''; placeRing(); }
});
root.addEventListener('focusout', () => { root.dataset.peek = ''; spaceHeld = false; });

// ---- buttons ------------------------------------------------------------------------------------------------------------

const amount = () => Math.max(1, Math.round(longest() / 200));
const act = {
  undo: () => travel(-1), redo: () => travel(1), fit: () => zoom.fit(), zoomIn: () => zoom.by(1.4), zoomOut: () => zoom.by(1 / 1.4),
  invert: () => replace(inverted(hole), {}), clear: () => replace(new Uint8Array(width * height), {}),
  fill: () => replace(withoutIslands(hole, width, height), {}),
  grow: () => replace(grown(hole, width, height, amount()), {}), shrink: () => replace(shrunk(hole, width, height, amount()), {}),
  choose: () => $('.mp-file').click(), newPhoto: startOver, openMask: () => $('.mp-mask-file').click(), saveMask, peek: () => {},
  nextThing: () => { picks = null; drawPicks(); refresh(); stage.focus(); }, openExtend, cancelExtend: closeExtend, extend: extendCanvas,
  cancelMask: () => { root.dataset.ask = ''; asked = null; stage.focus(); },
};
root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || button.disabled) return;
  if (button.dataset.do) { act[button.dataset.do](); if (button.closest('.mp-list') && !['grow', 'shrink'].includes(button.dataset.do)) $('.mp-menu').open = false; }
  else if (button.dataset.tool) choose(button.dataset.tool);
  else if (button.dataset.effect) { effect = button.dataset.effect; refresh(); }
  else if (button.dataset.point) { pointInside = button.dataset.point === 'in'; refresh(); }
  else if (button.dataset.missing) answerPolarity(button.dataset.missing);
});
const peek = $('[data-do=peek]'), peeking = (on) => { root.dataset.peek = on ? 'on' : ''; peek.setAttribute('aria-pressed', on); };
peek.addEventListener('pointerdown', () => peeking(true));
for (const end of ['pointerup', 'pointerleave', 'pointercancel', 'blur', 'keyup']) peek.addEventListener(end, () => peeking(false));
peek.addEventListener('keydown', (event) => { if (event.key === ' ' || event.key === 'Enter') peeking(true); });
$('.mp-size input').addEventListener('input', (event) => { sizeStep = +event.target.value; refresh(); });
for (const [input, open] of [['.mp-file', openPhoto], ['.mp-mask-file', openMask]]) {
  $(input).addEventListener('change', (event) => { const file = event.target.files[0]; event.target.value = ''; open(file); });
}
const carried = (event) => [...(event.dataTransfer || event.clipboardData).files].find((file) => file.type.startsWith('image/') || /\.(png|jpe?g|webp|tiff?|bmp|gif|avif|jp2)$/i.test(file.name));
for (const over of ['dragenter', 'dragover']) stage.addEventListener(over, (event) => { event.preventDefault(); root.dataset.drag = 'on'; });
for (const out of ['dragleave', 'drop']) stage.addEventListener(out, () => { root.dataset.drag = ''; });
stage.addEventListener('drop', (event) => { event.preventDefault(); const file = carried(event); if (file) openPhoto(file); else if (event.dataTransfer.files.length) tell(words.noPicture); });
root.addEventListener('paste', (event) => { const file = carried(event); if (file) { event.preventDefault(); openPhoto(file); } });

watch('value', heard);
refresh();
heard();
restore();
