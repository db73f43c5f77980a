// The pictures of a trial: one size and one zoom for all, and ways to see one in another's place.

import { button, h } from "./elements.js";

const FLICKER_MS = 500; // one change every half second: well below three flashes a second (WCAG 2.3.1)
const TAP_MS = 250; // shorter than this, holding a tool was a tap, which keeps it on
const LARGEST_ZOOM = 16; // screen pixels per picture pixel
const STEP = 1.25;
const GAP = 12; // CSS pixels between pictures; matches --gap in participant.css
const CAPTION = 26; // height of a caption, matches --caption

/** Fetch and decode every picture of a trial, so that showing it is one step. */
export async function loadPictures(client, trial, wantInput) {
	const tokens = [...trial.candidates.map((each) => each.token), ...(wantInput ? [trial.input.token] : [])];
	const urls = await Promise.all(
		tokens.map(async (token) => URL.createObjectURL(await client.blob(`s/${token}`))),
	);
	const candidates = urls.slice(0, trial.candidates.length);
	const input = wantInput ? urls.at(-1) : null;
	const layers = candidates.map((own, at) => {
		const next = candidates[(at + 1) % candidates.length];
		return { own: picture(own), other: picture(next), input: input && picture(input) };
	});
	const shownInput = input && picture(input);
	const all = [...layers.flatMap((each) => [each.own, each.other, each.input]), shownInput].filter(Boolean);
	await Promise.all(all.map((image) => image.decode()));
	return { trial, layers, input: shownInput, release: () => urls.forEach((url) => URL.revokeObjectURL(url)) };
}

function picture(url) {
	const image = new Image();
	image.draggable = false;
	image.decoding = "sync";
	image.alt = "";
	image.src = url;
	return image;
}

export class Stage {
	/**
	 * `notice(type, value)` hears of zooming, flickering and peeking; `display` is the study's, `say` the catalogue.
	 */
	constructor({ display, say, notice }) {
		this.display = display;
		this.say = say;
		this.notice = notice;
		this.zoom = null; // null fits; else screen pixels per picture pixel
		this.centre = [0.5, 0.5]; // of the picture, at the middle of every frame
		this.pictures = null;
		this.tiles = h("div", { class: "tiles" });
		this.toolbar = this.#makeTools();
		this.element = h("div", { class: "stage" }, this.tiles, this.toolbar);
		this.resize = new ResizeObserver(() => this.arrange());
		this.resize.observe(this.element);
		this.#listen();
	}

	close() {
		this.resize.disconnect();
		this.calm();
	}

	/** Swap in a trial whose pictures are decoded. */
	show(pictures) {
		this.calm();
		this.zoom = null;
		this.centre = [0.5, 0.5];
		this.pictures?.release();
		this.pictures = pictures;
		const frames = pictures.layers.map((layers, at, all) =>
			this.#tile("candidate", this.name(at), this.name(at, "_alt"), layers, this.name((at + 1) % all.length)),
		);
		if (pictures.input && this.display.show_input === "always") {
			frames.unshift(this.#tile("input", this.say("input"), this.say("input_alt"), { own: pictures.input }));
		}
		this.tiles.replaceChildren(...frames);
		this.arrange();
	}

	/** What the picture at a position is called. */
	name(at, form = "") {
		const side = at ? "right" : "left";
		return this.say((this.pictures.layers.length > 2 ? "number" : side) + form, { n: at + 1 });
	}

	#tile(kind, name, alt, layers, otherName) {
		layers.own.alt = alt;
		const shown = Object.entries(layers).filter(([, image]) => image);
		for (const [layer, image] of shown) image.dataset.layer = layer;
		const frame = h("div", { class: "frame" }, shown.map(([, image]) => image));
		const tile = h("figure", { class: `tile ${kind}` }, h("figcaption", {}, name), frame);
		Object.assign(tile.dataset, { name, other: otherName ?? "", show: "own" });
		return tile;
	}

	/** Find the number of columns that makes the pictures largest, and size them all alike. */
	arrange() {
		if (!this.pictures) return;
		const { width, height } = this.pictures.trial;
		const count = this.tiles.children.length;
		const space = this.tiles.getBoundingClientRect();
		let best = { side: 0, columns: count };
		for (let columns = 1; columns <= count; columns += 1) {
			const rows = Math.ceil(count / columns);
			const wide = (space.width - GAP * (columns - 1)) / columns;
			const high = ((space.height - GAP * (rows - 1)) / rows - CAPTION) * (width / height);
			const side = Math.floor(Math.min(wide, high));
			if (side > best.side) best = { side, columns };
		}
		const side = Math.max(best.side, 1);
		this.frame = { width: side, height: Math.round((side * height) / width) };
		this.tiles.style.setProperty("--columns", best.columns);
		// Two results belong side by side; when a row has room for two only, the photograph gets a row of its own.
		this.tiles.classList.toggle("photograph-above", count === 3 && best.columns === 2);
		this.tiles.style.setProperty("--wide", `${this.frame.width}px`);
		this.tiles.style.setProperty("--high", `${this.frame.height}px`);
		this.#transform();
	}

	get fitScale() {
		return (this.frame.width * devicePixelRatio) / this.pictures.trial.width;
	}

	/** Null fits the pictures in; a number is screen pixels per picture pixel. */
	setZoom(zoom, at = [0, 0]) {
		if (!this.pictures || !this.display.zoom) return;
		const before = this.zoom ?? this.fitScale;
		const { width, height } = this.pictures.trial;
		const after = zoom === null ? this.fitScale : Math.min(Math.max(zoom, Math.min(1, this.fitScale)), LARGEST_ZOOM);
		// The point under the pointer stays where it is.
		this.centre[0] += (at[0] * devicePixelRatio * (1 / before - 1 / after)) / width;
		this.centre[1] += (at[1] * devicePixelRatio * (1 / before - 1 / after)) / height;
		this.zoom = zoom === null ? null : after;
		if (zoom === null) this.centre = [0.5, 0.5];
		this.#transform();
		this.notice("zoom", zoom === null ? "fit" : after.toFixed(2));
	}

	/** Fit, then 1:1, then 2:1, then fit again. */
	cycleZoom() {
		const levels = [null, ...(this.display.native_px ? [1, 2] : [2 * this.fitScale])];
		const at = levels.findIndex((level) => level === this.zoom);
		this.setZoom(levels[(at + 1) % levels.length]);
	}

	stepZoom(direction) {
		this.setZoom((this.zoom ?? this.fitScale) * STEP ** direction);
	}

	/** Move all pictures by CSS pixels. */
	pan(dx, dy) {
		if (this.zoom === null) return;
		this.centre[0] -= (dx * devicePixelRatio) / (this.zoom * this.pictures.trial.width);
		this.centre[1] -= (dy * devicePixelRatio) / (this.zoom * this.pictures.trial.height);
		this.#transform();
	}

	#transform() {
		const { width, height } = this.pictures.trial;
		const scale = this.zoom ?? this.fitScale;
		const size = [(width * scale) / devicePixelRatio, (height * scale) / devicePixelRatio];
		const frame = [this.frame.width, this.frame.height];
		const offset = [0, 1].map((axis) => {
			const slack = Math.max(0, (1 - frame[axis] / size[axis]) / 2); // how far the centre may move
			this.centre[axis] = Math.min(Math.max(this.centre[axis], 0.5 - slack), 0.5 + slack);
			const shift = frame[axis] / 2 - this.centre[axis] * size[axis];
			return Math.round(shift * devicePixelRatio) / devicePixelRatio; // whole screen pixels, so that nothing blurs
		});
		this.tiles.style.setProperty("--size-x", `${size[0]}px`);
		this.tiles.style.setProperty("--size-y", `${size[1]}px`);
		this.tiles.style.setProperty("--move", `translate(${offset[0]}px, ${offset[1]}px)`);
		this.tiles.classList.toggle("zoomed", this.zoom !== null);
		this.tiles.classList.toggle("square-pixels", scale >= 1.5 && this.zoom !== null);
		for (const each of this.toolbar.querySelectorAll("[data-zoom]")) {
			each.setAttribute("aria-pressed", String(each.dataset.zoom === String(this.zoom ?? "fit")));
		}
	}

	// ---- tools

	#makeTools() {
		const { say, display } = this;
		const zooms = [["fit", null], ...(display.native_px ? [["native", 1], ["double", 2]] : [])];
		const zoomButtons = zooms.map(([name, level]) => {
			const zoom = button(say(name), () => this.setZoom(level));
			zoom.dataset.zoom = level ?? "fit";
			zoom.title = `${say(`${name}_title`)} (Z)`;
			return zoom; // #transform says whether it is pressed
		});
		return h("div", { class: "tools", role: "toolbar", "aria-label": say("tools") },
			display.zoom && h("div", { class: "segments" }, zoomButtons),
			display.flicker && this.#holdButton("flicker", "F"),
			display.show_input !== "never" && this.#holdButton("peek", "I"),
		);
	}

	#holdButton(tool, key) {
		const attributes = { type: "button", class: tool, "aria-pressed": "false", title: `${this.say(`${tool}_title`)} (${key})` };
		const holder = h("button", attributes, this.say(tool), h("kbd", { "aria-hidden": "true" }, key));
		const press = (event) => {
			if (event.type === "keydown" && (event.repeat || ![" ", "Enter"].includes(event.key))) return;
			event.preventDefault();
			if (event.pointerId !== undefined) holder.setPointerCapture(event.pointerId);
			this.hold(tool);
		};
		const release = (event) => {
			if (event.type === "keyup" && ![" ", "Enter"].includes(event.key)) return;
			this.letGo(tool);
		};
		for (const type of ["pointerdown", "keydown"]) holder.addEventListener(type, press);
		for (const type of ["pointerup", "pointercancel", "keyup"]) holder.addEventListener(type, release);
		holder.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch means: hold
		holder.addEventListener("click", (event) => {
			if (event.detail === 0 && event.isTrusted && !this.heldAt) this.toggle(tool); // assistive technology only clicks
		});
		return holder;
	}

	/** Begin to hold a tool; when it was kept on by a tap, this ends it. */
	hold(tool) {
		if (this.tool === tool && this.kept) {
			this.calm();
			this.ending = true;
			return;
		}
		this.calm();
		this.#begin(tool);
		this.heldAt = performance.now();
	}

	/** End holding a tool; after a mere tap it stays on. */
	letGo(tool) {
		if (this.ending) {
			this.ending = false;
			return;
		}
		if (this.tool !== tool) return;
		if (performance.now() - this.heldAt < TAP_MS) this.kept = true;
		else this.calm();
	}

	toggle(tool) {
		if (this.tool === tool) this.calm();
		else {
			this.calm();
			this.#begin(tool);
			this.kept = true;
		}
	}

	#begin(tool) {
		const candidates = [...this.tiles.querySelectorAll(".candidate")];
		const allowed = tool === "flicker" ? this.display.flicker : this.pictures?.input;
		if (!allowed) return;
		this.tool = tool;
		this.toolbar.querySelector(`.${tool}`)?.setAttribute("aria-pressed", "true");
		this.notice(tool === "flicker" ? "flip" : "peek", "on");
		if (tool === "peek") this.#showLayer(candidates, "input");
		else {
			const flip = () => {
				this.#showLayer(candidates, candidates[0].dataset.show === "own" ? "other" : "own");
				this.notice("flipped");
			};
			flip();
			this.timer = setInterval(flip, FLICKER_MS);
		}
	}

	#showLayer(tiles, layer) {
		for (const tile of tiles) {
			tile.dataset.show = layer;
			const { name, other } = tile.dataset;
			const caption = { own: name, other, input: this.say("input_short") }[layer];
			tile.querySelector("figcaption").textContent = caption;
		}
	}

	/** Every picture in its own place again. */
	calm() {
		clearInterval(this.timer);
		if (this.tool) {
			this.#showLayer(this.tiles.querySelectorAll(".candidate"), "own");
			this.toolbar.querySelector(`.${this.tool}`)?.setAttribute("aria-pressed", "false");
			this.notice(this.tool === "flicker" ? "flip" : "peek", "off");
		}
		this.tool = null;
		this.kept = false;
		this.heldAt = null;
	}

	// ---- pointers

	#listen() {
		const fingers = new Map();
		const place = (event, frame) => {
			const box = frame.getBoundingClientRect();
			return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
		};
		this.tiles.addEventListener("pointerdown", (event) => {
			const frame = event.target.closest(".frame");
			if (!frame || !this.display.zoom || event.button > 0) return;
			fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, frame });
			if (this.zoom !== null || fingers.size > 1) frame.setPointerCapture(event.pointerId);
		});
		this.tiles.addEventListener("pointermove", (event) => {
			const finger = fingers.get(event.pointerId);
			if (!finger) return;
			const before = spread(fingers);
			const [dx, dy] = [event.clientX - finger.x, event.clientY - finger.y];
			Object.assign(finger, { x: event.clientX, y: event.clientY });
			this.pan(dx / fingers.size, dy / fingers.size);
			if (fingers.size === 2 && before > 0) {
				const zoom = ((this.zoom ?? this.fitScale) * spread(fingers)) / before;
				this.setZoom(zoom <= this.fitScale * 1.01 ? null : zoom, place(event, finger.frame));
			}
		});
		for (const type of ["pointerup", "pointercancel"]) {
			this.tiles.addEventListener(type, (event) => fingers.delete(event.pointerId));
		}
		this.tiles.addEventListener("dblclick", (event) => {
			const frame = event.target.closest(".frame");
			if (!frame) return;
			const closer = Math.max(2, this.fitScale * 2);
			this.setZoom(this.zoom === null ? closer : null, place(event, frame));
		});
		this.tiles.addEventListener(
			"wheel",
			(event) => {
				const frame = event.target.closest(".frame");
				// Without a zoom the wheel scrolls the page, as everywhere; with Ctrl (or a pinch on a touchpad) it zooms.
				if (!frame || !this.display.zoom || (this.zoom === null && !event.ctrlKey)) return;
				event.preventDefault();
				const zoom = (this.zoom ?? this.fitScale) * STEP ** (-event.deltaY / 100);
				this.setZoom(zoom <= this.fitScale * 1.01 && event.deltaY > 0 ? null : zoom, place(event, frame));
			},
			{ passive: false },
		);
	}
}

function spread(fingers) {
	if (fingers.size !== 2) return 0;
	const [a, b] = [...fingers.values()];
	return Math.hypot(a.x - b.x, a.y - b.y);
}
