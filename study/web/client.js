// Talking to the server: JSON calls, pictures, and an outbox that does not give up an answer.

const PATIENCE_MS = 20_000; // our choice: a phone on a bad line answers within this or not at all
const WAITS_S = [1, 2, 4, 8, 15]; // between tries; the last one repeats for as long as it takes
const BUSY = 429;

/** The server understood and said no; `code` is its word for why. */
export class RefusedError extends Error {
	constructor(status, problem) {
		super(problem.error);
		this.status = status;
		this.code = problem.code;
	}
}

/** No answer came, or none that makes sense: worth trying again. */
export class UnreachableError extends Error {}

export class Client {
	/** `base` is the address of the study routes, ending in `/study/`. */
	constructor(base) {
		this.base = base;
		this.token = null;
	}

	get(path) {
		return this.#call("GET", path);
	}

	post(path, body = {}, headers = {}) {
		return this.#call("POST", path, body, headers);
	}

	async #call(method, path, body, headers) {
		const reply = await this.#fetch(`api/v1/${path}`, {
			method,
			headers: { ...(body && { "Content-Type": "application/json" }), ...headers },
			body: body && JSON.stringify(body),
		});
		return reply.status === 204 ? null : reply.json().catch(unreachable);
	}

	/** A picture's bytes; its address is worth nothing without the session's token. */
	async blob(path) {
		return (await this.#fetch(path, {})).blob().catch(unreachable);
	}

	/** Events may be lost; answers never go this way. */
	beacon(events) {
		return navigator.sendBeacon(`${this.base}api/v1/events`, JSON.stringify({ events, token: this.token }));
	}

	async #fetch(path, { headers, ...rest }) {
		const reply = await fetch(this.base + path, {
			...rest,
			headers: { ...headers, ...(this.token && { Authorization: `Bearer ${this.token}` }) },
			cache: "no-store",
			signal: AbortSignal.timeout(PATIENCE_MS),
		}).catch(unreachable);
		if (reply.ok) return reply;
		if (reply.status >= 500 || reply.status === BUSY) return unreachable(new Error(`status ${reply.status}`));
		const problem = await reply.json().catch(() => ({ error: `status ${reply.status}`, code: "bad_request" }));
		throw new RefusedError(reply.status, problem);
	}
}

function unreachable(error) {
	throw new UnreachableError(String(error?.message ?? error));
}

/**
 * Run `attempt` until the server answers. `report(seconds)` hears the wait before each new try (0 when one begins),
 * and gets a function that ends the wait.
 */
export async function persist(attempt, report) {
	for (let tries = 0; ; tries += 1) {
		try {
			return await attempt();
		} catch (error) {
			if (!(error instanceof UnreachableError)) throw error;
			await countdown(WAITS_S[tries] ?? WAITS_S.at(-1), report);
			report(0, () => {});
		}
	}
}

function countdown(seconds, report) {
	return new Promise((resolve) => {
		let left = seconds;
		const done = () => {
			clearInterval(timer);
			removeEventListener("online", done);
			resolve();
		};
		const timer = setInterval(() => {
			if (--left > 0) report(left, done);
			else done();
		}, 1000);
		addEventListener("online", done);
		report(left, done);
	});
}

/** The number whose SHA-256 after a challenge begins with `bits` zero bits. */
export async function work(client, bits) {
	const { challenge } = await client.get("challenge");
	for (let answer = 0; ; answer += 1) {
		const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${challenge}:${answer}`));
		if (new DataView(hash).getUint32() < 2 ** (32 - bits)) return { challenge, answer };
	}
}

/** A value kept on this device, null when there is none or storage is blocked. */
export function stored(key) {
	try {
		return localStorage.getItem(key);
	} catch {
		return null;
	}
}

/** Keep a value on this device; false when storage is blocked. */
export function store(key, value) {
	try {
		localStorage.setItem(key, value);
		return true;
	} catch {
		return false;
	}
}

/** What the page remembers of a study: in localStorage, else the session's token in the address's fragment. */
export class Memory {
	constructor(slug) {
		this.key = `asuka-study:${slug}`;
		this.fragment = `session-${slug}`;
	}

	read() {
		const kept = stored(this.key);
		if (kept) return JSON.parse(kept);
		const token = new URLSearchParams(location.hash.slice(1)).get(this.fragment);
		return token ? { token } : {};
	}

	write(kept) {
		if (store(this.key, JSON.stringify(kept))) return;
		const fragment = new URLSearchParams(location.hash.slice(1));
		if (kept.token) fragment.set(this.fragment, kept.token);
		else fragment.delete(this.fragment);
		history.replaceState(history.state, "", `${location.pathname}${location.search}#${fragment}`);
	}
}
