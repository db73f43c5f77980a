// The result beside the photo: one divider, the same zoom for both, and what the server measured in the file.
// Gradio runs this text as a function of (element, trigger, props, server, upload, watch) after zoom.js.

const REVEAL = 900;   // ms, long enough to see it move (our choice)
const EXAMPLES = 3000;   // ms until a page that came before the examples were ready asks again (our choice)
const PRESS = 2000;  // ms in which a run that was asked for shows up here, or never will
const GRAB = 24;   // screen pixels on both sides of the divider that take hold of it when zoomed in
const root = element.querySelector('.rv'), $ = (selector) => root.querySelector(selector), $$ = (selector) => [...root.querySelectorAll(selector)];
const stage = $('.rv-stage'), layer = $('.rv-layer'), before = $('.rv-before'), after = $('.rv-after'), range = $('.rv-range');
const words = props.texts[navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'];
const say = (key, values) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
let panes = [], sure = 0, begun = false, pressed = false, asking = 0;   // pressed: Run, while a run was on
let results = [], selected = -1, share = 0.5, width = 0, height = 0, drag = null, shownIds = '', newest = null;

$$('[data-t]').forEach((node) => { node.textContent = words[node.dataset.t]; });
$$('[data-label]').forEach((node) => node.setAttribute('aria-label', words[node.dataset.label]));

const zoom = makeZoom(stage, layer, (scale, fitted) => {
  root.dataset.zoomed = fitted ? '' : 'on';
  $('.rv-percent').textContent = fitted ? words.fit : Math.round(scale * 100 * width / (results[selected]?.width || width)) + ' %';
  placeDivider();
});
const pinch = makePinch(zoom);

function placeDivider() {
  if (!width) return;
  const frame = stage.getBoundingClientRect(), box = layer.getBoundingClientRect(), x = share * stage.clientWidth;
  const cut = (x + frame.left + stage.clientLeft - box.left) * width / box.width;
  after.style.clipPath = 'inset(0 0 0 ' + Math.max(0, Math.min(width, cut)) + 'px)';
  $('.rv-divider').style.left = x + 'px'; range.value = Math.round(share * 1000);
}
function divide(clientX) {
  const frame = stage.getBoundingClientRect();
  share = Math.max(0, Math.min(1, (clientX - frame.left - stage.clientLeft) / stage.clientWidth)); placeDivider();
}
function sizeStage() {
  if (width) stage.style.height = Math.round(Math.max(200, Math.min(innerHeight * 0.7, stage.clientWidth * height / width))) + 'px';
}
new ResizeObserver(() => { sizeStage(); zoom.refit(); }).observe(root);

// From the photo to the result, stopping left of the hole, so that nobody has to look for what happened.
function reveal(until) {
  share = 1;
  const revealed = newest, begun = performance.now(), still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const frame = (now) => {
    const part = still ? 1 : Math.min(1, (now - begun) / REVEAL);
    if (drag || newest !== revealed) return;
    share = 1 + (until - 1) * (1 - (1 - part) ** 3); placeDivider();
    if (part < 1) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

async function select(index) {
  selected = index;
  const result = results[index];
  before.src = result.before.url; after.src = result.view.url;
  await Promise.all([before.decode(), after.decode()]);
  if (selected !== index) return;
  const resized = before.naturalWidth !== width || before.naturalHeight !== height;
  width = before.naturalWidth; height = before.naturalHeight;
  root.dataset.state = 'shown'; root.dataset.preview = ''; sizeStage();
  if (resized) zoom.show(width, height); else placeDivider();
  $('.rv-changes').src = result.changes.url; panes = []; showPair(); calmOffer();
  before.alt = words.before; after.alt = words.after + ': ' + result.title;
  const proof = $('.rv-proof'), extra = result.ring ? say('ring', {ring: result.ring.toLocaleString()}) : '';
  proof.classList.toggle('changed', result.changed > 0);
  $('.rv-changed').textContent = result.changed === 1 ? words.onePixel : say('pixels', {count: result.changed.toLocaleString()});
  $('.rv-ring').textContent = extra && '(' + extra + ')';
  $('.rv-facts').textContent = [result.title, say('seed', {seed: result.seed}), say('took', {seconds: result.seconds}), result.width + ' × ' + result.height, words.generated].join(' · ');
  $('.rv-inside').hidden = !result.previews.length;
  $('.rv-inside div').replaceChildren(...result.previews.map((preview) => {
    const figure = document.createElement('figure'), image = document.createElement('img'), caption = document.createElement('figcaption');
    const [kind, which] = preview.name.split(' ');
    image.loading = 'lazy'; image.src = preview.file.url; image.alt = caption.textContent = [words['look_' + kind] || kind, which].filter(Boolean).join(' ');
    figure.append(image, caption); return figure;
  }));
  const link = $('.rv-main'); link.href = result.file.url; link.download = result.name;
  $$('.rv-strip button').forEach((node, i) => node.setAttribute('aria-pressed', i === index));
}

// ---- the same photo, hole and seed through several methods, or one method's seeds -------------------------------------------

const MOST_PANES = 4;
function rivals() {   // of the selected result
  const chosen = results[selected];
  if (!chosen) return [];
  const run = results.filter((result) => result.run === chosen.run), seed = run.filter((result) => result.seed === chosen.seed);
  return (seed.length > 1 ? seed : run).slice(0, MOST_PANES);
}
function methodsCompared() { const keys = rivals().map((result) => result.method); return keys.length > 1 && new Set(keys).size === keys.length; }

function showPair() {
  const several = rivals().length > 1;
  root.dataset.pair = several ? 'on' : '';
  root.dataset.offer = props.offers && methodsCompared() ? 'on' : '';
  if (!several) setGrid(false); else if (root.dataset.grid && rivals().length !== panes.length) fillGrid();
}
function setGrid(on) {
  root.dataset.grid = on ? 'on' : ''; $('[data-do=grid]').setAttribute('aria-pressed', on);
  if (on) fillGrid(); else { panes = []; $('.rv-grid').replaceChildren(); zoom.refit(); }
}
function fillGrid() {
  panes = [];
  $('.rv-grid').replaceChildren(...rivals().map((result) => {
    const figure = document.createElement('figure'), stage = document.createElement('div'), layer = document.createElement('div'), caption = document.createElement('figcaption');
    figure.className = 'rv-pane'; layer.className = 'rv-layer'; caption.textContent = result.title + ' · ' + say('seed', {seed: result.seed});
    for (const [name, file] of [['before', result.before], ['after', result.view], ['changes', result.changes]]) {
      const image = document.createElement('img'); image.className = 'rv-' + name; image.src = file.url; image.alt = name === 'after' ? words.after + ': ' + result.title : ''; layer.append(image);
    }
    stage.style.aspectRatio = width + ' / ' + height; stage.append(layer); figure.append(stage, caption);
    panes.push({stage, layer});
    return figure;
  }));
  let following = false;
  for (const pane of panes) {
    pane.zoom = makeZoom(pane.stage, pane.layer, () => {
      if (following || !pane.zoom) return;
      following = true;
      for (const other of panes) if (other !== pane) other.zoom.view = pane.zoom.view;
      following = false;
    });
    dragPane(pane);
  }
  for (const pane of panes) pane.zoom.show(width, height);
}
function dragPane(pane) {
  const pinch = makePinch(pane.zoom);
  let from = null;
  pane.stage.addEventListener('pointerdown', (event) => { pane.stage.setPointerCapture(event.pointerId); from = pinch.down(event) ? null : [event.clientX, event.clientY]; event.preventDefault(); });
  pane.stage.addEventListener('pointermove', (event) => {
    if (pinch.move(event) || !from) return;
    pane.zoom.move(event.clientX - from[0], event.clientY - from[1]); from = [event.clientX, event.clientY];
  });
  for (const end of ['pointerup', 'pointercancel']) pane.stage.addEventListener(end, (event) => { pinch.up(event); from = null; });
}
const inUse = () => (panes.length ? panes[0].zoom : zoom);

// Not while a run is on or results are shown: the answer would overwrite what is told of them.
function askForExamples() {
  if (!root.isConnected || results.length) clearInterval(asking);
  else if (!root.dataset.busy && !begun) trigger('examples');
}
function fillExamples(examples) {
  $('.rv-examples').replaceChildren(...examples.map((example, number) => {
    const button = document.createElement('button'), pair = document.createElement('span');
    button.type = 'button'; button.dataset.example = example.key;
    for (const [source, text] of [[example.before, words.before], [example.after, words.after]]) { const image = document.createElement('img'); image.src = source; image.alt = text; pair.append(image); }
    button.append(pair, words['example_' + example.key]); button.addEventListener('click', () => trigger('example', {example: number}));
    return button;
  }));
}

function fillStrip() {
  const ids = results.map((result) => result.file.path).join('|');
  if (ids === shownIds) return;
  shownIds = ids;
  $('.rv-strip').replaceChildren(...results.map((result, index) => {
    const button = document.createElement('button'), image = document.createElement('img'), title = document.createElement('b'), seed = document.createElement('span');
    button.type = 'button'; button.setAttribute('aria-pressed', index === selected); image.src = result.view.url; image.alt = ''; title.textContent = result.title; seed.textContent = say('seed', {seed: result.seed});
    button.append(image, title, seed); button.addEventListener('click', () => select(index));
    return button;
  }));
}

function progress(running) {
  root.dataset.busy = running ? 'on' : '';
  root.dataset.preview = running && running.preview ? 'on' : '';
  root.dataset.waiting = running && !running.title ? 'on' : '';
  if (!running) return;
  const {title, done, total} = running, whole = total > 1 ? say('running', {title, done, total}) : say('runningWhole', {title});
  if ($('[data-do=cancel]').disabled) return;
  $('.rv-doing').textContent = total ? whole : title ? say('starting', {title}) : words.waiting;
  $('.rv-part').textContent = running.count > 1 ? say('part', {number: running.number, count: running.count}) : '';
  const percent = running.count ? 100 * (running.number - 1 + (total ? done / total : 0)) / running.count : 0;
  $('.rv-track i').style.width = percent + '%'; $('.rv-track').setAttribute('aria-valuenow', Math.round(percent));
  if (running.preview) { sizeStage(); $('.rv-preview').src = running.preview; }
}

// `message` is a key of our words, or the server's own sentence about something that went wrong.
function tell(message) {
  const node = $('.rv-message');
  node.textContent = words[message] || message || ''; node.classList.toggle('shown', !!message); node.classList.toggle('calm', message in words);
}

async function heard() {
  const value = props.value;
  if (!value) return;
  results = value.results; fillStrip(); showPair(); progress(value.running);
  pressed = pressed && !!value.running;
  tell(pressed ? 'underWay' : value.message);
  if (value.examples) { fillExamples(value.examples); clearInterval(asking); asking = value.examples_coming ? setInterval(askForExamples, EXAMPLES) : 0; }
  hand(value.converted);
  const chosen = value.selected >= 0 ? value.selected + ' ' + results[value.selected].file.path : null;
  if (chosen && chosen !== newest) {   // once per run: a later result must not take the visitor's choice away
    newest = chosen; await select(value.selected); reveal(results[value.selected].divider);
  }
}

stage.addEventListener('pointerdown', (event) => {
  if (root.dataset.state !== 'shown') return;
  if (pinch.down(event)) { drag = null; return; }
  stage.setPointerCapture(event.pointerId);
  const x = stage.getBoundingClientRect().left + share * stage.clientWidth;
  if (zoom.fitted || Math.abs(event.clientX - x) < GRAB) { drag = 'divider'; divide(event.clientX); } else drag = [event.clientX, event.clientY];
  event.preventDefault();
});
stage.addEventListener('pointermove', (event) => {
  if (pinch.move(event) || !drag) return;
  if (drag === 'divider') divide(event.clientX);
  else { zoom.move(event.clientX - drag[0], event.clientY - drag[1]); drag = [event.clientX, event.clientY]; }
});
for (const end of ['pointerup', 'pointercancel']) stage.addEventListener(end, (event) => { pinch.up(event); drag = null; });
range.addEventListener('input', () => { share = range.value / 1000; placeDivider(); });

const hold = (on) => { root.dataset.hold = on ? 'on' : ''; $('[data-do=hold]').setAttribute('aria-pressed', on); };
$('[data-do=hold]').addEventListener('pointerdown', () => hold(true));
for (const end of ['pointerup', 'pointerleave', 'pointercancel', 'blur']) $('[data-do=hold]').addEventListener(end, () => hold(false));
root.addEventListener('keydown', (event) => {
  if (event.key === 'o' || ((event.key === ' ' || event.key === 'Enter') && event.target.dataset.do === 'hold')) hold(true);
});
root.addEventListener('keyup', () => hold(false));
function showChanges(on) { root.dataset.changes = on ? 'on' : ''; $('[data-do=changes]').setAttribute('aria-pressed', on); }
// People will look at an offered photo: once is not yet meant.
function calmOffer() { sure = 0; $('[data-do=offer]').textContent = words.offer; }
function offer() {
  sure += 1;
  if (sure === 1) { $('[data-do=offer]').textContent = words.offerSure; return; }
  calmOffer(); trigger('offer', {result: selected});
}
// PNG is there already; the others are made when somebody asks for one, and come as a download at once.
const convert = (form) => () => trigger('convert', {result: selected, form});
let converted = '';
function hand(file) {
  if (!file || file.file.path === converted) return;
  converted = file.file.path;
  const link = document.createElement('a'); link.href = file.file.url; link.download = file.name; link.click();
  const message = $('.rv-message'); message.classList.add('shown', 'calm');
  message.textContent = file.changed ? say('convertedLossy', {name: file.name, count: file.changed.toLocaleString()}) : say('convertedSame', {name: file.name});
}
const act = {jpeg: convert('jpeg'), webp: convert('webp'), zoomIn: () => inUse().by(1.4), zoomOut: () => inUse().by(1 / 1.4), fit: () => inUse().fit(), offer,
  changes: () => showChanges(!root.dataset.changes), grid: () => setGrid(!root.dataset.grid), reuse: () => trigger('reuse', {result: selected}),
  cancel: () => { $('[data-do=cancel]').disabled = true; $('.rv-doing').textContent = words.stopping; trigger('cancel'); }};
root.addEventListener('click', (event) => { const button = event.target.closest('[data-do]'); if (button && act[button.dataset.do]) act[button.dataset.do](); });

// A second press of Run never reaches Gradio: in the same instant it would run twice, later drop it without a word.
document.addEventListener('click', (event) => {
  if (!event.target.closest('#demo-run') || !root.isConnected) return;
  if (!begun && !root.dataset.busy) { begun = true; setTimeout(() => { begun = false; }, PRESS); return; }
  event.stopPropagation(); event.preventDefault();
  if (root.dataset.busy) { pressed = true; tell('underWay'); root.scrollIntoView({block: 'nearest', behavior: 'smooth'}); }
}, true);
root.waiting = () => { begun = false; $('.rv-message').classList.remove('shown'); progress({number: 0, count: 0, title: '', done: 0, total: 0}); $('[data-do=cancel]').disabled = false; root.scrollIntoView({block: 'nearest', behavior: 'smooth'}); };
root.idle = () => { begun = false; progress(null); };
// Gradio alone knows the place in its queue; it writes it over the component, where nobody looks.
const tracker = element.closest('.block')?.querySelector('[data-testid="status-tracker"]');
if (tracker) new MutationObserver(() => {
  const place = tracker.textContent.match(/(\d+)\/(\d+) \|/);
  if (root.dataset.waiting && place) $('.rv-doing').textContent = say('queued', {place: place[1], count: place[2]});
}).observe(tracker, {childList: true, subtree: true, characterData: true});
watch('value', heard);
heard();
