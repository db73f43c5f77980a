// The knobs of the chosen methods. What is turned lies in props.value.values, where Run finds it.
// Gradio runs this text as a function of (element, trigger, props, server, upload, watch).

const PRIOR_SIDE = 256;      // pixels: what the largest auto-encoder looks at (asuka_infer/prior_choice.py)
const PRIOR_QUALITY = 0.92;  // JPEG: 10-30 kB of base64 in the run record
const root = element.querySelector('.kp'), $ = (selector) => root.querySelector(selector);
const words = props.texts[navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'];
const say = (key, values) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
let shown = '', told = 0;

root.querySelectorAll('[data-t]').forEach((node) => { node.textContent = words[node.dataset.t]; });

const state = () => props.value || {methods: [], values: {}, looks: [], message: '', told: 0};
const turned = (key) => state().values[key] || {};
const valueOf = (method, knob) => knob.name in turned(method.key) ? turned(method.key)[knob.name] : knob.default;

function make(tag, parts = {}, ...children) {
  const node = Object.assign(document.createElement(tag), parts);
  node.append(...children);
  return node;
}
const plain = (name) => words['knob_' + name] || name.replace(/_/g, ' ').replace(/^./, (letter) => letter.toUpperCase());

// At its default a knob is not sent: a record then says what the method itself would have done.
function turn(method, knob, value, box) {
  const values = {...state().values, [method.key]: {...turned(method.key)}};
  if (value === knob.default) delete values[method.key][knob.name]; else values[method.key][knob.name] = value;
  props.value = {...state(), values};
  box.classList.toggle('turned', value !== knob.default);
}

function control(method, knob, box) {
  const value = valueOf(method, knob), name = method.key + '.' + knob.name;
  if (knob.kind === 'choice') {
    const select = make('select', {name}, ...knob.options.map((option) => make('option', {value: option, textContent: words['option_' + option] || option, selected: option === value})));
    select.addEventListener('change', () => turn(method, knob, select.value, box));
    return select;
  }
  const input = make('input', {name, type: {switch: 'checkbox', text: 'text'}[knob.kind] || 'number'});
  if (knob.kind === 'switch') { input.checked = value; input.addEventListener('change', () => turn(method, knob, input.checked, box)); return input; }
  input.value = value;
  if (knob.kind === 'text') { input.addEventListener('input', () => turn(method, knob, input.value, box)); return input; }
  input.min = knob.lowest ?? ''; input.max = knob.highest ?? ''; input.step = knob.kind === 'whole' ? 1 : 'any'; input.required = true;
  input.addEventListener('input', () => turn(method, knob, input.value === '' ? knob.default : Number(input.value), box));
  return input;
}
function describe(knob) {
  const ends = knob.lowest !== null && knob.highest !== null ? ' ' + say('knobRange', {lowest: knob.lowest, highest: knob.highest}) : '';
  return make('span', {className: 'kp-small', textContent: knob.meaning + ends});
}
function knobBox(method, knob) {
  const box = make('div', {className: 'kp-knob'}), switched = knob.kind === 'switch';
  box.classList.toggle('turned', valueOf(method, knob) !== knob.default);
  const text = make('span', {textContent: plain(knob.name)}), input = control(method, knob, box);
  box.append(make('label', {className: switched ? 'kp-switch' : ''}, ...(switched ? [input, text] : [text, input])), describe(knob));
  return box;
}

// ---- what the prior sees: a choice, and the colour or picture that goes with it -----------------------------------------

async function smallPicture(file) {
  const bitmap = await createImageBitmap(file, {imageOrientation: 'from-image'}), scale = Math.min(1, PRIOR_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make('canvas', {width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale))});
  const pen = canvas.getContext('2d');
  pen.fillStyle = '#fff'; pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = 'high'; pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/jpeg', PRIOR_QUALITY).split(',')[1];
}
function priorBox(method, knobs) {
  const box = make('div', {className: 'kp-knob kp-prior'}), [choice, colour, picture] = ['prior', 'prior_colour', 'prior_picture'].map((name) => knobs.find((knob) => knob.name === name));
  const select = control(method, choice, box), extra = make('div', {className: 'kp-row'});
  box.append(make('label', {}, make('span', {textContent: words.priorSees}), select), make('span', {className: 'kp-small', textContent: words.priorText}), extra);
  const refresh = () => {
    extra.replaceChildren();
    if (select.value === 'colour' && colour) {
      const input = make('input', {type: 'color', value: valueOf(method, colour), ariaLabel: words.priorColour});
      input.addEventListener('input', () => turn(method, colour, input.value, box)); extra.append(input);
    }
    if (select.value === 'picture' && picture) {
      const file = make('input', {type: 'file', accept: 'image/*', hidden: true}), button = make('button', {type: 'button', className: 'kp-button', textContent: words.priorChoose});
      const there = valueOf(method, picture);
      if (there) extra.append(make('img', {className: 'kp-prior-picture', alt: words.priorPicture, src: 'data:image/jpeg;base64,' + there}));
      button.addEventListener('click', () => file.click());
      file.addEventListener('change', async () => {
        try { turn(method, picture, await smallPicture(file.files[0]), box); refresh(); tell(''); } catch { tell(say('priorBad', {name: file.files[0].name})); }
      });
      extra.append(button, file);
    }
  };
  select.addEventListener('change', refresh); refresh();
  return box;
}

function build() {
  const methods = state().methods;
  $('.kp-methods').replaceChildren(...methods.filter((method) => method.knobs.length).map((method) => {
    const own = make('div', {className: 'kp-knobs'}), prior = method.knobs.filter((knob) => knob.name.startsWith('prior'));
    if (prior.length) own.append(priorBox(method, prior));
    own.append(...method.knobs.filter((knob) => !prior.includes(knob)).map((knob) => knobBox(method, knob)));
    const details = make('details', {}, make('summary', {textContent: say('knobsOf', {title: method.title})}), own);
    details.dataset.method = method.key;
    return details;
  }));
  $('.kp-sight').hidden = !methods.some((method) => method.shows_prior);
}

function tell(text) { const message = $('.kp-message'); message.textContent = text; message.classList.toggle('shown', !!text); }
function showLooks(looks) {
  $('.kp-looks').replaceChildren(...looks.map((look) => make('figure', {},
    make('img', {src: look.picture, alt: look.name}), make('figcaption', {textContent: look.method + ': ' + (words['look_' + look.name.split(' ')[0]] || look.name)}))));
}

function heard() {
  const value = state(), signature = JSON.stringify(value.methods);
  if (signature !== shown) { shown = signature; build(); }
  if (value.told === told) return;
  told = value.told; $('[data-do=look]').disabled = false;
  tell(value.message); showLooks(value.looks);
}
root.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do=look]');
  if (!button) return;
  button.disabled = true;
  // The painter says for itself what is missing; its hole goes along with the question (see tab.py).
  document.querySelector('.mp').flushToRun().then(() => trigger('look'), (problem) => { button.disabled = false; tell(problem.message); });
});
root.idle = () => { $('[data-do=look]').disabled = false; };
watch('value', heard);
build(); heard();
