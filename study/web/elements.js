// Making elements: h("button", { class: "primary", onclick }, "Next").

export function h(tag, attributes = {}, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (value === false || value === null || value === undefined) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
	return element;
}

export function button(text, onclick, kind = null) {
	return h("button", { type: "button", class: kind, onclick }, text);
}

/** A modal dialog over the study; `build(close)` lists its content. Resolves with what `close` was given. */
export function ask(root, label, build) {
	return new Promise((resolve) => {
		const dialog = h("dialog", { "aria-label": label });
		const close = (answer) => {
			dialog.close();
			dialog.remove();
			resolve(answer);
		};
		dialog.addEventListener("cancel", (event) => {
			event.preventDefault();
			close(undefined);
		});
		dialog.addEventListener("click", (event) => event.target === dialog && close(undefined));
		dialog.append(h("div", {}, ...build(close)));
		root.append(dialog);
		dialog.showModal();
	});
}
