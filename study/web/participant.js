// The participant's page: consent, instructions, trials, the end.

import { Client, Memory, persist, store, stored, work } from "./client.js";
import { ask, button, h } from "./elements.js";
import { loadPictures, Stage } from "./stage.js";
import { chooseLocale, loadTexts, localised } from "./texts.js";

const BASE = new URL("../", import.meta.url).href; // .../study/: right under any root path
const HEARTBEAT_MS = 60_000;
const ACTIVE_MS = 120_000; // a participant who did nothing for so long is not there; the lease then runs out
const EVENTS_MS = 10_000;
const MOST_EVENTS = 150; // the server takes 200 at a time
const SECONDS_A_TRIAL = 15; // for the first estimate, our choice; then the median of the trials done here
const SAVED_MS = 2_000; // how long "Saved" stays
const LINK = ["PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "workerId", "assignmentId", "hitId", "survey_code", "participant"];
const FIGURES = "23456789"; // on the colour plates
const SHORTCUTS_KEY = "asuka-study-shortcuts";
const WITHOUT_CATALOGUE = { error_title: "That did not work / 操作未成功", check_again: "Try again / 重试" };

const clock = () => performance.now();

let styles;

/**
 * Put the study into `host`. Without a slug the visitor chooses among the open studies. `standalone` fills the window
 * and takes the document's title. Returns a function that removes it.
 */
export async function mount(host, { slug = null, standalone = false } = {}) {
	const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
	styles ??= fetch(`${BASE}static/participant.css`)
		.then((reply) => reply.text())
		.then((text) => new CSSStyleSheet().replace(text));
	root.adoptedStyleSheets = [await styles];
	const place = h("div", { class: standalone ? "study standalone" : "study" });
	root.replaceChildren(place);
	const visit = new Visit(host, place, standalone);
	await visit.begin(slug);
	return () => {
		visit.end();
		root.replaceChildren();
	};
}

class Visit {
	constructor(host, place, standalone) {
		this.host = host;
		this.place = place;
		this.standalone = standalone;
		this.client = new Client(BASE);
		this.lifetime = new AbortController();
		this.say = (key) => WITHOUT_CATALOGUE[key] ?? "";
		this.events = [];
		this.lastActive = clock();
		this.durations = [];
		this.query = new URLSearchParams(location.search);
	}

	// ---- arriving

	async begin(slug) {
		this.slug = slug;
		await this.#attempt(async () => {
			this.say = await loadTexts(BASE, chooseLocale(["en", "zh"], this.#wantedLocales()));
			const open = slug ? [await this.#get(`studies/${encodeURIComponent(slug)}`)] : (await this.#get("studies")).studies;
			if (open.length === 1) await this.#enter(open[0]);
			else this.#chooseStudy(open);
		});
	}

	#wantedLocales() {
		return [this.locale, this.query.get("lang"), ...navigator.languages];
	}

	#chooseStudy(studies) {
		const { say } = this;
		if (!studies.length) return this.#message(say("no_study"), say("no_study_more"), this.#againButton(() => this.begin(null)));
		const cards = studies.map((study) => {
			const locale = chooseLocale(Object.keys(study.title), this.#wantedLocales());
			return h("li", {},
				h("button", { type: "button", class: "card", onclick: () => this.#attempt(() => this.#enter(study)) },
					h("strong", { lang: locale }, localised(study.title, locale)),
					h("span", {}, this.#facts(study))),
			);
		});
		this.#sheet(h("h1", {}, say("choose_study")), h("ul", { class: "cards" }, cards));
	}

	async #enter(study) {
		this.study = study;
		this.memory = new Memory(study.slug);
		await this.#setLocale(chooseLocale(Object.keys(study.title), this.#wantedLocales()));
		if (this.standalone) document.title = this.#text(study.title);
		this.#watch();
		const kept = this.memory.read();
		// A recruiting platform's id in the address outranks what this device remembers.
		if (this.#recruited()) return this.#route(await this.#join());
		if (kept.token) {
			this.client.token = kept.token;
			const session = await this.#knownSession();
			if (session) return this.#route(session);
			this.client.token = null;
			this.memory.write({});
		}
		if (["live", "pilot", "draining"].includes(study.status)) this.#welcome();
		else this.#ended(study.status === "paused" ? "paused" : "closed");
	}

	async #knownSession() {
		try {
			return await this.#get("sessions/me");
		} catch (error) {
			if (error.code === "unknown_session") return null;
			throw error;
		}
	}

	#recruited() {
		const link = [...this.query].filter(([name, value]) => value && LINK.includes(name));
		return link.length ? { link: Object.fromEntries(link) } : null;
	}

	async #setLocale(locale) {
		this.locale = locale;
		this.say = await loadTexts(BASE, locale);
		this.place.lang = locale;
		if (this.standalone) document.documentElement.lang = locale;
	}

	/** Where the session stands decides the screen. */
	async #route(session) {
		if (session.locale !== this.locale && Object.keys(this.study.title).includes(session.locale)) {
			await this.#setLocale(session.locale);
		}
		if (["created", "screened"].includes(session.state)) return this.#welcome();
		// A session that was left alone for long goes on when its next trial is asked for.
		if (["consented", "practising", "running", "abandoned"].includes(session.state)) {
			return session.progress.answered > 0 || this.instructed ? this.#goOn() : this.#instructions();
		}
		if (["completed", "declined", "screened_out", "full"].includes(session.state)) {
			const completion = await this.#get("sessions/me/completion");
			return this.#ended(session.state, completion, session.progress);
		}
		return this.#ended(session.state);
	}

	// ---- before

	#text(texts) {
		return localised(texts, this.locale);
	}

	#facts(study) {
		const minutes = Math.max(1, Math.round((study.trials * SECONDS_A_TRIAL) / 60));
		return this.say("welcome_facts", { trials: study.trials, minutes });
	}

	#languages(redraw) {
		const locales = Object.keys(this.study.title);
		if (locales.length < 2) return null;
		const name = (locale) => new Intl.DisplayNames([locale], { type: "language" }).of(locale); // its own for itself
		const options = locales.map((each) => h("option", { value: each, selected: each === this.locale }, name(each)));
		const select = h("select", { "aria-label": this.say("language") }, options);
		select.addEventListener("change", async () => {
			await this.#setLocale(select.value);
			redraw();
		});
		return h("div", { class: "language" }, select);
	}

	#welcome() {
		const { say, study } = this;
		const boxes = Object.entries(study.consent.boxes).map(([key, texts]) =>
			h("label", { class: "tick" }, h("input", { type: "checkbox", value: key, required: true }), h("span", {}, this.#text(texts))),
		);
		const problem = h("p", { class: "problem", role: "alert" });
		const form = h("form", { novalidate: true },
			boxes,
			problem,
			actions(
				h("button", { class: "primary" }, say("take_part")),
				button(say("decline"), () => this.#decline(), "quiet"),
			),
		);
		form.addEventListener("submit", async (event) => {
			event.preventDefault();
			const open = form.querySelector("input:not(:checked)");
			problem.textContent = open ? say("tick_all") : "";
			if (open) return open.focus();
			await this.#once(form, () => this.#consent([...form.querySelectorAll("input")].map((box) => box.value)));
		});
		this.#sheet(
			this.#languages(() => this.#welcome()),
			h("h1", {}, this.#text(study.title)),
			h("p", { class: "facts" }, this.#facts(study)),
			h("div", { class: "prose" }, paragraphs(this.#text(study.introduction))),
			h("section", { class: "consent" },
				h("h2", {}, say("consent_title")),
				h("div", { class: "prose" }, paragraphs(this.#text(study.consent.text)), h("p", {}, say("consent_screen_reader"))),
				h("p", { class: "fine" }, say("consent_version", { version: study.consent.version }))),
			form,
		);
	}

	async #consent(boxes) {
		if (!this.client.token) await this.#join();
		let screened = await this.#post("sessions/me/environment", environment());
		if (screened.state === "created" && this.study.screen.colour_vision) screened = await this.#readPlates();
		if (!["created", "screened"].includes(screened.state)) return this.#route(screened);
		const answer = { accepted: true, boxes, locale: this.locale };
		return this.#route(await this.#post("sessions/me/consent", answer));
	}

	async #readPlates() {
		const figures = [];
		for (let n = 0; n < this.study.screen.colour_vision; n += 1) figures.push(await this.#plate(n));
		return this.#post("sessions/me/plates", { figures });
	}

	async #plate(n) {
		const { say } = this;
		const src = URL.createObjectURL(await this.#patiently(() => this.client.blob(`api/v1/sessions/me/plates/${n}`)));
		return new Promise((resolve) => {
			this.read = resolve;
			const choice = (figure) => button(figure || say("plate_none"), () => resolve(figure));
			this.#sheet(
				h("h1", {}, say("plate_title", { n: n + 1, of: this.study.screen.colour_vision })),
				h("p", {}, say("plate_text")),
				h("img", { class: "plate", src, alt: say("plate_alt") }),
				actions([...FIGURES, ""].map(choice)),
			);
		}).finally(() => {
			this.read = null;
			URL.revokeObjectURL(src);
		});
	}

	async #join() {
		const wish = { study: this.study.slug, locale: this.locale, ...this.#recruited() };
		const bits = this.study.proof_of_work;
		if (bits) wish.proof = await work(this.client, bits).catch(() => null); // who cannot may take part
		const joined = await this.#post("sessions", wish);
		this.client.token = joined.token;
		const kept = this.memory.read();
		this.memory.write(kept.token === joined.token ? kept : { token: joined.token });
		return joined.session;
	}

	async #decline() {
		// Who was not recruited has no session yet, and declining makes none.
		if (!this.client.token) return this.#ended("declined", {});
		const answer = { accepted: false, boxes: [], locale: this.locale };
		await this.#attempt(async () => this.#route(await this.#post("sessions/me/consent", answer)));
	}

	#instructions() {
		const { say, study } = this;
		const pair = study.candidates === 2;
		const begin = button(say("start"), () => this.#once(begin, () => this.#goOn()), "primary");
		const ties = study.criteria.some((criterion) => criterion.allow_tie);
		this.#sheet(
			h("h1", {}, say("how_title")),
			diagram(pair ? 2 : Math.min(study.candidates, 4)),
			h("ol", { class: "steps" },
				h("li", {}, pair ? say("how_pair") : say("how_many", { n: study.candidates })),
				h("li", {}, say("how_questions"),
					this.#questions(),
					ties && h("p", {}, say("how_tie"))),
				h("li", {}, say("how_saved")),
			),
			h("details", { class: "more" }, h("summary", {}, say("how_tools")), this.#keys()),
			actions(begin),
		);
		this.instructed = true;
	}

	// ---- trials

	async #goOn() {
		const pending = this.memory.read().pending;
		this.#buildDesk();
		this.#status("pictures_late");
		// An answer that this page could not save before it was closed goes first.
		await this.#take(await (pending ? this.#deliver(pending) : this.#get("trial")));
	}

	#buildDesk() {
		const { say } = this;
		this.stage = new Stage({ display: this.study.display, say, notice: (type, value) => this.#looked(type, value) });
		this.heading = h("h1", { class: "heading", tabindex: "-1" });
		this.bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": "0" }, h("i"));
		this.count = h("span", { class: "count" });
		this.left = h("span", { class: "left" });
		this.saved = h("div", { class: "saved", role: "status" });
		this.form = h("form", { class: "answers", novalidate: true, "aria-label": say("questions") });
		this.form.addEventListener("submit", (event) => {
			event.preventDefault();
			this.#next();
		});
		this.desk = h("div", { class: "desk" },
			h("header", {},
				[this.heading, this.bar, this.count, this.left, this.saved],
				button(say("help"), () => this.#help(), "quiet"),
				button(say("stop"), () => this.#stop(), "quiet"),
			),
			h(this.standalone ? "main" : "section", { class: "pictures" }, this.stage.element),
			this.form,
		);
		// A clicked button must not catch the Enter meant for Next; one reached by Tab keeps the focus.
		this.desk.addEventListener("click", (event) => {
			if (event.detail > 0 && event.target.closest("button")) this.heading.focus({ preventScroll: true });
		}, true);
		this.#show(this.desk);
		this.#checkRoom();
	}

	async #take(reply) {
		this.progress = reply.progress;
		if (!reply.trial) {
			this.memory.write({ token: this.client.token });
			this.#ended(reply.state, reply.completion, reply.progress);
			return;
		}
		if (reply.trial.id !== this.current?.trial.id) {
			const pictures = this.#preloaded(reply.trial);
			this.#status("pictures_late");
			await this.#display(await pictures);
		}
		if (reply.upcoming) this.#preloaded(reply.upcoming);
		this.upcoming = reply.upcoming;
		this.#drawProgress();
		if (this.pressed) this.#next(); // while the answer before was still being saved
	}

	/** The pictures of a trial, fetched and decoded once. */
	#preloaded(trial) {
		if (this.loading?.id !== trial.id) {
			const wantInput = this.study.display.show_input !== "never";
			const promise = this.#patiently(() => loadPictures(this.client, trial, wantInput), "pictures");
			this.loading = { id: trial.id, promise };
			promise.catch(() => {
				this.loading = null; // when the trial's turn comes, it is tried again and its error told
			});
		}
		return this.loading.promise;
	}

	async #display(pictures) {
		const { trial } = pictures;
		this.current = { trial, key: randomKey(), shownAt: null, hidden: 0, zoomed: 0, flips: 0, marks: new Map() };
		this.pressed = false;
		this.stage.show(pictures);
		this.#drawQuestions(trial);
		this.#status(null);
		await painted();
		this.current.shownAt = clock();
		this.current.hiddenAt = document.hidden ? clock() : null;
		this.#event("decode", null);
		// Nobody waits for this; when it is lost, the answer's own times still hold.
		this.client.post(`trial/${trial.id}/shown`).catch(() => {});
		this.#drawProgress();
		this.#refreshNext();
		setTimeout(() => this.#refreshNext(), this.study.min_view_ms + 1);
		clearTimeout(this.reminder);
		this.reminder = setTimeout(() => this.#remind(trial), this.study.soft_max_s * 1000);
		this.heading.focus({ preventScroll: true });
	}

	#remind(trial) {
		if (this.current?.trial.id === trial.id) this.hint.textContent = this.say("take_your_time");
	}

	#drawProgress() {
		if (!this.current || !this.progress) return;
		const { say } = this;
		const { number, practice } = this.current.trial;
		const of = practice ? this.study.practice : this.progress.of;
		const n = Math.min(number, of);
		const title = say(practice ? "practice" : "progress", { n, of });
		this.heading.textContent = title;
		this.count.textContent = practice ? title : say("progress_short", { n, of });
		this.bar.setAttribute("aria-label", title);
		this.bar.setAttribute("aria-valuemax", of);
		this.bar.setAttribute("aria-valuenow", n - 1);
		this.bar.firstChild.style.inlineSize = `${(100 * (n - 1)) / of}%`;
		const more = practice ? this.study.trials : 0;
		const seconds = median(this.durations, SECONDS_A_TRIAL) * (of - n + 1 + more);
		this.left.textContent = seconds < 60 ? say("time_left_last") : say("time_left", { minutes: Math.round(seconds / 60) });
		this.nextButton.firstChild.textContent = n === of && !practice ? say("finish") : say("next");
	}

	// ---- questions

	#drawQuestions(trial) {
		const { say } = this;
		this.hint = h("p", { class: "hint", role: "status" });
		this.nextButton = h("button", { class: "primary next", "aria-disabled": "true" }, h("span", {}, say("next")), h("kbd", { "aria-hidden": "true" }, "↵"));
		const fields = trial.criteria.map((key, at) => this.#question(key, at, trial.candidates.length));
		const marks = !trial.practice && this.#marks();
		this.form.replaceChildren(h("div", { class: "fields" }, fields, marks), h("div", { class: "go" }, this.hint, this.nextButton));
		this.#activate(0);
	}

	#question(key, at, candidates) {
		const { say } = this;
		const criterion = this.#criterion(key);
		const options = [];
		const option = (value, label, shortcut, kind) =>
			options.push(
				h("label", { class: `option ${kind}` },
					h("input", { type: "radio", name: `question-${at}`, value }),
					h("span", {}, label, shortcut && h("kbd", { "aria-hidden": "true" }, shortcut))),
			);
		const pair = candidates === 2;
		if (pair) option("0", say("left"), "1", "choice");
		else for (let n = 0; n < candidates; n += 1) option(String(n), String(n + 1), null, "choice");
		if (pair && criterion.allow_tie) option("tie", say("tie"), "0", "tie");
		if (pair) option("1", say("right"), "2", "choice");
		else if (criterion.allow_tie) option("tie", say("tie"), "0", "tie");
		if (criterion.allow_cant_tell) option("cant_tell", say("cant_tell"), "?", "cant-tell");
		const field = h("fieldset", { "data-key": key, "data-at": at },
			h("legend", {}, h("span", { class: "term" }, this.#text(criterion.title)), " ", this.#text(criterion.question)),
			h("div", { class: `options ${pair ? "pair" : "many"}` }, options),
		);
		field.addEventListener("change", (event) => this.#answered(at, event.target.value));
		field.addEventListener("focusin", () => this.#activate(at));
		return field;
	}

	#criterion(key) {
		return this.study.criteria.find((each) => each.key === key);
	}

	#fields() {
		return [...this.form.querySelectorAll("fieldset")];
	}

	#activate(at) {
		this.active = at;
		this.#fields().forEach((field, index) => field.classList.toggle("active", index === at));
	}

	#answered(at, value) {
		if (!this.current?.shownAt) return;
		const now = clock() - this.current.shownAt;
		const mark = this.current.marks.get(at) ?? { first: now, changes: -1 };
		if (mark.value !== value) Object.assign(mark, { value, last: now, changes: mark.changes + 1 });
		this.current.marks.set(at, mark);
		this.pressed = false;
		this.hint.textContent = "";
		this.#refreshNext();
	}

	/** Answer the active question by key, and go to the next open one. */
	#choose(value) {
		const field = this.#fields()[this.active];
		const radio = field?.querySelector(`input[value="${value}"]`);
		if (!radio || !this.current?.shownAt) return false;
		radio.checked = true;
		if (field.contains(this.place.getRootNode().activeElement)) radio.focus();
		this.#answered(this.active, value);
		const open = this.#firstOpen();
		if (open >= 0) this.#moveTo(open);
		return true;
	}

	#moveTo(at) {
		const field = this.#fields()[at];
		if (!field) return;
		const focused = this.place.getRootNode().activeElement;
		if (focused?.type === "radio") (field.querySelector("input:checked") ?? field.querySelector("input")).focus();
		this.#activate(at);
	}

	#firstOpen() {
		return this.#fields().findIndex((field) => !field.querySelector("input:checked"));
	}

	#viewedLongEnough() {
		return this.current?.shownAt && clock() - this.current.shownAt >= this.study.min_view_ms;
	}

	#refreshNext() {
		const ready = this.#firstOpen() < 0 && this.#viewedLongEnough() && !this.delivering;
		this.nextButton?.setAttribute("aria-disabled", String(!ready));
	}

	#next() {
		const { say } = this;
		if (!this.current?.shownAt) return;
		const open = this.#firstOpen();
		if (open >= 0) {
			const field = this.#fields()[open];
			this.hint.textContent = say("answer_first", { question: this.#text(this.#criterion(field.dataset.key).title) });
			this.#activate(open);
			field.querySelector("input").focus();
		} else if (!this.#viewedLongEnough()) this.hint.textContent = say("look_first");
		else if (this.delivering) {
			this.hint.textContent = say("wait_for_save");
			this.pressed = true;
		} else this.#attempt(() => this.#submit());
	}

	async #submit() {
		const { current } = this;
		this.stage.calm();
		this.#count("hidden");
		this.#count("zoomed");
		clearTimeout(this.reminder);
		this.durations.push((clock() - current.shownAt) / 1000);
		const pending = { trial: current.trial.id, key: current.key, responses: responses(current) };
		// The answer is on this device before it is on its way: closing the page now does not lose it.
		this.memory.write({ token: this.client.token, pending });
		const ahead = !current.trial.practice && this.upcoming;
		this.upcoming = null;
		const delivery = this.#deliver(pending);
		delivery.catch(() => {});
		// The next pictures are mostly there: show them while the answer travels.
		if (ahead) {
			const pictures = await Promise.race([this.#preloaded(ahead).catch(() => null), delivery.then(() => null)]);
			if (pictures && this.delivering) await this.#display(pictures);
		} else this.#status("saving");
		const reply = await delivery;
		if (reply.practice) await this.#explain(reply);
		await this.#take(reply);
	}

	async #explain({ practice, trial }) {
		const { say } = this;
		const { correct, right, flaw } = practice;
		const title = say(correct ? "practice_right" : "practice_wrong");
		this.#status(null);
		await ask(this.place, title, (close) => [
			h("h1", { class: "why" }, title),
			h("p", {}, say(`practice_${flaw}`, { name: this.stage.name(right) })),
			!trial?.practice && h("p", {}, say("practice_over")),
			actions(h("button", { class: "primary", autofocus: true, onclick: () => close() }, say("next"))),
		]);
	}

	/** Send an answer until the server has it; the key makes a repetition harmless. */
	async #deliver(pending) {
		this.delivering = true;
		this.#refreshNext();
		this.#savedStatus(this.say("saving"));
		const send = () =>
			this.client.post(`trial/${pending.trial}/answer`, { responses: pending.responses }, { "Idempotency-Key": pending.key });
		try {
			const reply = await persist(send, (seconds, now) => {
				this.#event("retry", String(seconds));
				this.#savedStatus(seconds ? this.say("not_saved", { seconds }) : this.say("not_saved_now"), seconds ? now : null);
			});
			this.#delivered(this.say("saved"));
			return reply;
		} catch (error) {
			// The server keeps this answer as evidence; go on from there.
			if (!["late", "already_answered", "unknown_trial", "wrong_answer"].includes(error.code)) throw error;
			this.#delivered("");
			return this.#get("trial");
		}
	}

	#delivered(text) {
		this.delivering = false;
		this.memory.write({ token: this.client.token });
		this.#savedStatus(text);
		clearTimeout(this.savedTimer);
		this.savedTimer = setTimeout(() => this.#savedStatus(""), SAVED_MS);
		this.#refreshNext();
	}

	#savedStatus(text, retry = null) {
		clearTimeout(this.savedTimer);
		if (!this.saved) return;
		this.saved.classList.toggle("late", Boolean(retry));
		this.saved.replaceChildren(
			...[text, retry && button(this.say("retry_now"), retry)].filter(Boolean),
		);
	}

	/** Say what is waited for if the wait is long; null ends it. */
	#status(key) {
		clearTimeout(this.noticeTimer);
		if (key) this.noticeTimer = setTimeout(() => this.#notice(this.say(key)), 400);
		else this.#notice(null);
	}

	#notice(text, ...more) {
		clearTimeout(this.noticeTimer);
		this.place.querySelector(".notice")?.remove();
		const covers = this.desk?.isConnected && !this.current?.shownAt;
		if (text) this.place.append(h("div", { class: covers ? "notice veil" : "notice toast", role: "status" }, text, ...more));
	}

	// ---- keys

	#key(event) {
		const path = event.composedPath();
		const target = path[0];
		const busy = this.place.querySelector("dialog[open]") || this.room?.isConnected;
		if (!this.host.checkVisibility() || busy) return;
		if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
		const figure = [...FIGURES, "0"].includes(event.key) && this.shortcuts && !event.repeat;
		if (figure) this.read?.(event.key.replace("0", ""));
		if (!this.desk?.isConnected) return;
		if (!path.includes(this.place) && target !== document.body) return;
		if (target.matches?.("select, textarea, input:not([type=radio])")) return;
		const button = target.closest?.("button");
		if (event.key === "Enter" && (!button || button === this.nextButton)) {
			event.preventDefault();
			if (!event.repeat) this.#next();
		} else if (event.key === "Escape") this.stage.calm();
		else if (this.shortcuts && this.#shortcut(event)) event.preventDefault();
	}

	#shortcut(event) {
		const { stage } = this;
		const pair = this.current?.trial.candidates.length === 2;
		if (event.key.startsWith("Arrow")) {
			if (event.shiftKey) {
				stage.pan(...{ ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key]);
				return true;
			}
			if (!pair) return false;
			const value = { ArrowLeft: "0", ArrowRight: "1", ArrowDown: "tie", ArrowUp: "cant_tell" }[event.key];
			return event.repeat || this.#choose(value) || true;
		}
		if (event.repeat) return false;
		const key = event.key.toLowerCase().replace("？", "?"); // a Chinese keyboard's
		if (/^[1-9]$/.test(key)) return this.#choose(String(Number(key) - 1));
		const action = {
			0: () => this.#choose("tie"),
			"?": () => this.#choose("cant_tell"),
			q: () => this.#moveTo((this.active + 1) % this.#fields().length),
			z: () => stage.cycleZoom(),
			"+": () => stage.stepZoom(1),
			"=": () => stage.stepZoom(1),
			"-": () => stage.stepZoom(-1),
			f: () => stage.hold("flicker"),
			i: () => stage.hold("peek"),
		}[key];
		return Boolean(action) && action() !== false;
	}

	#keyUp(event) {
		if (!this.stage) return;
		const tool = { f: "flicker", i: "peek" }[event.key.toLowerCase()];
		if (tool && this.shortcuts) this.stage.letGo(tool);
	}

	get shortcuts() {
		return this.shortcutsHere ?? stored(SHORTCUTS_KEY) !== "off";
	}

	set shortcuts(on) {
		this.shortcutsHere = on;
		store(SHORTCUTS_KEY, on ? "on" : "off");
	}

	#keys() {
		const { say } = this;
		const pair = this.study.candidates === 2;
		const { display } = this.study;
		const ties = this.study.criteria.some((each) => each.allow_tie);
		const unsure = this.study.criteria.some((each) => each.allow_cant_tell);
		const rows = [
			pair && [["1", "←"], "key_left"],
			pair && [["2", "→"], "key_right"],
			!pair && [["1", "…", "9"], "key_choose"],
			ties && [pair ? ["0", "↓"] : ["0"], "key_tie"],
			unsure && [pair ? ["?", "↑"] : ["?"], "key_cant_tell"],
			[["Q"], "key_question"],
			[["↵"], "key_next"],
			display.zoom && [["Z", "+", "−"], "key_zoom"],
			display.zoom && [["⇧ ←→↑↓"], "key_pan"],
			display.flicker && [["F"], "key_flicker"],
			display.show_input !== "never" && [["I"], "key_peek"],
		].filter(Boolean);
		const list = rows.map(([keys, text]) => [h("dt", {}, keys.map((key) => h("kbd", {}, key))), h("dd", {}, say(text))]);
		const shortcuts = h("input", { type: "checkbox", role: "switch", checked: this.shortcuts });
		shortcuts.addEventListener("change", () => {
			this.shortcuts = shortcuts.checked;
		});
		return h("div", { class: "keys" },
			h("h2", {}, say("keys_title")),
			h("dl", {}, list.flat()),
			h("label", { class: "tick" }, shortcuts, h("span", {}, say("keys_on"))),
			h("h2", {}, say("touch_title")),
			h("p", {}, say("touch_zoom")),
			h("p", {}, say("touch_hold")),
		);
	}

	// ---- dialogs

	async #help() {
		const { say } = this;
		this.stage.calm();
		await ask(this.place, say("help_title"), (close) => [
			h("h1", { tabindex: "-1", autofocus: true }, say("help_title")),
			this.#questions(),
			this.#keys(),
			actions(button(say("close"), () => close(), "primary")),
		]);
	}

	#questions() {
		const items = this.study.criteria.map((each) =>
			h("li", {}, h("strong", {}, this.#text(each.title)), " ", this.#text(each.question)),
		);
		return [h("ul", { class: "questions" }, items), this.#marks()];
	}

	/** How to answer a trial whose pictures are marked; said on every trial, so that nobody has to remember it. */
	#marks() {
		return this.study.attention && h("p", { class: "fine marks" }, this.say("marks"));
	}

	async #stop() {
		this.stage.calm();
		const answer = await this.#choice("stop", [["back", "primary"], ["keep", ""], ["erase", "danger"]]);
		if (["keep", "erase"].includes(answer)) await this.#withdraw(answer === "erase");
	}

	async #eraseAfter() {
		const answer = await this.#choice("erase", [["back", "primary"], ["confirm", "danger"]]);
		if (answer === "confirm") await this.#withdraw(true);
	}

	#choice(subject, answers) {
		const { say } = this;
		return ask(this.place, say(`${subject}_title`), (close) => [
			h("h1", { tabindex: "-1", autofocus: true }, say(`${subject}_title`)),
			h("p", {}, say(`${subject}_text`)),
			h("div", { class: "actions stacked" }, answers.map(([name, kind]) =>
				button(say(`${subject}_${name}`), () => close(name), kind))),
		]);
	}

	async #withdraw(erase) {
		await this.#attempt(async () => {
			const session = await this.#post("sessions/me/withdraw", { erase });
			this.memory.write({ token: this.client.token });
			await this.#route(session);
		});
	}

	// ---- the end

	#ended(state, completion = {}, progress = null) {
		const { say } = this;
		this.#leaveDesk();
		if (state === "completed") return this.#thank(completion, progress);
		const again = {
			paused: () => this.#againButton(() => this.#enter(this.study)),
			full: () => this.#anotherButton("check_again"),
			declined: () => this.#againButton(() => this.#welcome(), "begin_anew"),
			abandoned: () => this.#anotherButton("begin_anew"),
			withdrawn: () => this.#anotherButton("begin_anew"),
		}[state];
		return this.#message(say(`${state}_title`), say(`${state}_text`), this.#handover(completion), again?.());
	}

	#thank(completion, progress) {
		const { say } = this;
		this.host.dispatchEvent(new CustomEvent("study-finished", { bubbles: true, detail: { study: this.study.slug } }));
		this.#sheet(
			h("div", { class: "tick-mark" }),
			h("h1", {}, say("done_title")),
			h("p", { class: "facts" }, progress ? say("done_count", { n: progress.answered }) : "", " · ", say("done_text")),
			this.#handover(completion),
			h("div", { class: "actions afterwards" },
				this.#anotherButton("again"),
				button(say("erase_after"), () => this.#eraseAfter(), "quiet")),
		);
		this.place.querySelector(".sheet").classList.add("done");
	}

	#handover(completion) {
		const { say } = this;
		const { code, redirect } = completion ?? {};
		if (!code && !redirect) return null;
		const copy = button(say("copy"), async () => {
			await navigator.clipboard?.writeText(code);
			copy.textContent = say("copied");
		});
		return h("div", { class: "handover" },
			code && h("p", { class: "fine" }, say("code")),
			code && h("p", { class: "code" }, h("output", {}, code), navigator.clipboard && copy),
			redirect && h("a", { class: "primary", href: redirect.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(this.query.get(name))), rel: "noreferrer" }, say("return_to")),
		);
	}

	#anotherButton(text) {
		if (this.#recruited()) return null;
		return this.#againButton(() => {
			Object.assign(this, { upcoming: null, loading: null, instructed: false, durations: [] });
			this.client.token = null;
			this.memory.write({});
			return this.#enter(this.study);
		}, text);
	}

	#againButton(action, text = "check_again") {
		const again = button(this.say(text), () => this.#once(again, action));
		return again;
	}

	#fail(error) {
		console.error(error);
		this.#leaveDesk();
		if (error.code === "unknown_session") {
			this.client.token = null;
			this.memory?.write({});
		}
		const again = this.#againButton(() => (this.study ? this.#enter(this.study) : this.begin(this.slug)));
		const unknown = error.code === "unknown_study";
		const title = this.say(unknown ? "unknown_study_title" : "error_title");
		this.#message(title, unknown ? this.say("unknown_study_text") : error.message, again);
	}

	// ---- screens

	#show(...content) {
		this.place.replaceChildren(...content.filter(Boolean));
	}

	#sheet(...content) {
		const sheet = h(this.standalone ? "main" : "section", { class: "sheet" }, h("div", {}, ...content));
		this.#show(sheet);
		const heading = sheet.querySelector("h1");
		heading?.setAttribute("tabindex", "-1");
		if (this.moved) heading?.focus({ preventScroll: true });
		this.moved = true; // the first screen takes no focus
		sheet.scrollTop = 0;
	}

	#message(title, text, ...more) {
		this.#sheet(h("h1", {}, title), h("p", {}, text), ...more);
	}

	#leaveDesk() {
		clearTimeout(this.reminder);
		this.#status(null);
		this.stage?.close();
		this.stage = null;
		this.current = null;
		this.desk = null;
	}

	async #once(element, action) {
		element.inert = true;
		await this.#attempt(action);
		element.inert = false;
	}

	async #attempt(action) {
		try {
			await action();
		} catch (error) {
			this.#fail(error);
		}
	}

	#get(path) {
		return this.#patiently(() => this.client.get(path));
	}

	#post(path, body) {
		return this.#patiently(() => this.client.post(path, body));
	}

	/** Ask the server until it answers, saying so when that takes long. */
	#patiently(attempt, what = "server") {
		return persist(attempt, (seconds, now) => {
			if (what === "pictures" && this.current) return; // still looking at another trial
			const retry = button(this.say("retry_now"), now);
			if (seconds) this.#notice(this.say("server_away", { seconds }), retry);
			else this.#notice(this.say("loading"));
		}).finally(() => this.#notice(null));
	}

	/** A window below the study's minimum gets a card with its live size. */
	#checkRoom() {
		const { min_css_width: width, min_css_height: height } = this.study.screen;
		const fits = innerWidth >= width && innerHeight >= height;
		this.room?.remove();
		if (fits || !this.desk?.isConnected) return;
		const { say } = this;
		const text = say("small_text", { needed: `${width} × ${height}`, actual: `${innerWidth} × ${innerHeight}` });
		this.room = h("div", { class: "room", role: "alert" }, h("h1", {}, say("small_title")), h("p", {}, text));
		this.place.append(this.room);
	}

	// ---- watching

	#watch() {
		if (this.watching) return;
		this.watching = true;
		const { signal } = this.lifetime;
		const on = (target, type, listener) => target.addEventListener(type, listener, { signal });
		on(document, "keydown", (event) => this.#key(event));
		on(document, "keyup", (event) => this.#keyUp(event));
		on(document, "visibilitychange", () => this.#visibility());
		on(window, "blur", () => {
			this.stage?.calm();
			this.#event("blur", null);
		});
		on(window, "focus", () => this.#event("focus", null));
		on(window, "resize", () => {
			if (this.desk) this.#checkRoom();
			clearTimeout(this.resized);
			this.resized = setTimeout(() => this.#event("resize", `${innerWidth}x${innerHeight}`), 500);
		});
		on(window, "pagehide", () => this.#sendEvents(true));
		for (const type of ["pointerdown", "pointermove", "keydown"]) {
			on(document, type, () => (this.lastActive = clock()));
		}
		const timers = [setInterval(() => this.#heartbeat(), HEARTBEAT_MS), setInterval(() => this.#sendEvents(false), EVENTS_MS)];
		signal.addEventListener("abort", () => timers.forEach(clearInterval));
	}

	end() {
		this.#sendEvents(true);
		this.#leaveDesk();
		this.lifetime.abort();
	}

	#heartbeat() {
		const here = !document.hidden && clock() - this.lastActive < ACTIVE_MS;
		if (this.desk && here) this.client.post("sessions/me/heartbeat").catch(() => {}); // the next one will do
	}

	#visibility() {
		this.#event(document.hidden ? "hidden" : "visible", null);
		if (document.hidden) {
			this.#sendEvents(true);
			if (this.current) this.current.hiddenAt = clock();
		} else this.#count("hidden");
	}

	#count(what) {
		const since = this.current?.[`${what}At`];
		if (!since) return;
		this.current[what] += clock() - since;
		this.current[`${what}At`] = null;
	}

	#looked(type, value) {
		if (!this.current) return;
		if (type === "flipped") return void (this.current.flips += 1);
		if (type === "zoom") {
			if (value === "fit") this.#count("zoomed");
			else this.current.zoomedAt ??= clock();
			// A pinch is hundreds of steps; the last of them says it.
			if (this.events.at(-1)?.type === "zoom") this.events.pop();
		}
		this.#event(type, value);
	}

	#event(type, value) {
		if (!this.client.token) return;
		const trial = this.current?.trial.id ?? null;
		this.events.push({ type, t_ms: Date.now(), trial, value });
		if (this.events.length > MOST_EVENTS) this.#sendEvents(false);
	}

	#sendEvents(leaving) {
		if (!this.events.length || !this.client.token) return;
		const events = this.events.splice(0, MOST_EVENTS);
		if (leaving) this.client.beacon(events);
		else this.client.post("events", { events }).catch(() => {}); // evidence, not answers: it may be lost
	}
}

// ---- details

const actions = (...children) => h("div", { class: "actions" }, ...children);

function responses(current) {
	return current.trial.criteria.map((criterion, at) => {
		const mark = current.marks.get(at);
		const chosen = !["tie", "cant_tell"].includes(mark.value);
		return {
			criterion,
			outcome: chosen ? "choice" : mark.value,
			position: chosen ? Number(mark.value) : null,
			rt_ms: Math.round(mark.last),
			first_input_ms: Math.round(mark.first),
			n_changes: mark.changes,
			zoom_ms: Math.round(current.zoomed),
			flips: current.flips,
			hidden_ms: Math.round(current.hidden),
		};
	});
}

function environment() {
	const touch = matchMedia("(pointer: coarse)").matches;
	const browsers = [[/Firefox\//, "firefox"], [/Chrom(e|ium)\//, "chromium"], [/Safari\//, "safari"], [/^/, "other"]];
	return {
		css_width: Math.max(1, innerWidth),
		css_height: Math.max(1, innerHeight),
		device_pixel_ratio: devicePixelRatio,
		touch,
		device: !touch ? "desktop" : Math.min(screen.width, screen.height) < 600 ? "phone" : "tablet",
		browser: browsers.find(([pattern]) => pattern.test(navigator.userAgent))[1],
	};
}

/** Resolves when the page is on the screen. */
function painted() {
	return new Promise((resolve) => {
		// A hidden page paints nothing and would wait for ever.
		if (document.hidden) resolve();
		else requestAnimationFrame(() => requestAnimationFrame(resolve));
	});
}

/** Not crypto.randomUUID: browsers hide that from pages served without TLS. */
function randomKey() {
	return crypto.getRandomValues(new Uint32Array(4)).join("-");
}

function median(values, otherwise) {
	return [...values].sort((a, b) => a - b)[values.length >> 1] ?? otherwise;
}

function paragraphs(text) {
	return text.split(/\n{2,}/).filter(Boolean).map((each) => h("p", {}, each));
}

/** A sketch of a trial. */
function diagram(results) {
	const box = (kind) => h("span", { class: `sketch ${kind}` }, h("i"));
	return h("div", { class: "diagram", "aria-hidden": "true" }, box("hole"), Array.from({ length: results }, () => box("filled")));
}
