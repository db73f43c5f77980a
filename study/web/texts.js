// What the page says, in the reader's language: catalogues for its own words, and the study's texts by locale.

const FALLBACK = "en";

/** The best of the study's locales for this reader. */
export function chooseLocale(available, wanted) {
	const known = new Map(available.map((locale) => [locale.toLowerCase(), locale]));
	for (const tag of wanted.filter(Boolean)) {
		const exact = known.get(tag.toLowerCase()) ?? known.get(tag.toLowerCase().split("-")[0]);
		if (exact) return exact;
	}
	return known.get(FALLBACK) ?? available[0] ?? FALLBACK;
}

/** A text the study's author gave by locale. */
export function localised(texts, locale) {
	return texts[locale] ?? texts[locale.split("-")[0]] ?? texts[FALLBACK] ?? Object.values(texts)[0] ?? "";
}

/** The page's own words: `say(key, values)`. A language without a catalogue gets English. */
export async function loadTexts(base, locale) {
	for (const tag of [locale, locale.split("-")[0], FALLBACK]) {
		const reply = await fetch(`${base}static/texts/${encodeURIComponent(tag)}.json`);
		if (reply.ok) {
			const catalogue = await reply.json();
			return (key, values = {}) => {
				if (!(key in catalogue)) throw new Error(`The catalogue ${tag} has no text ${key}.`);
				return catalogue[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
			};
		}
	}
	throw new Error("No catalogue of texts could be loaded.");
}
