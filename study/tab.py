"""The study's tab: one Gradio component that mounts the participant's page, the same that /study/<slug> shows."""

import gradio as gr

SHELL = """
<div class="study-host" id="study-host"><p>The study needs JavaScript.</p></div>
<p class="study-alone">
  <a href="study/${slug}" target="_blank" rel="noopener">Open this study in a window of its own</a>
</p>
"""

CSS = """
.study-alone { margin: 0.5rem 0 0; font-size: 0.875rem; text-align: end; }
"""

# Gradio runs this once when the tab is first opened. The routes lie beside the page whatever path it is served under.
MOUNT = """
const page = (window.gradio_config?.root || document.baseURI.split(/[?#]/)[0]).replace(/\\/*$/, "/");
const host = element.querySelector(".study-host");
import(new URL("study/static/participant.js", page).href)
  .then((participant) => participant.mount(host, { slug: props.slug }))
  .catch((error) => { host.textContent = `The study could not be loaded (${error.message}). Reload the page.`; });
"""


def build_study_tab(slug: str) -> gr.HTML:
    """Put the participant's page of a study into the Blocks or Tab that is open.

    No value of a study passes through Gradio: the page talks to the routes of `study.api.router`, which must be served
    beside it. It fires the DOM event `study-finished` (it bubbles) when a session is completed.

    Args:
        slug: of the study.
    """
    return gr.HTML(
        html_template=SHELL,
        css_template=CSS,
        js_on_load=MOUNT,
        slug=slug,
        elem_id="study-page",
        apply_default_css=False,
    )


ADMIN_SHELL = """
<p class="study-alone"><a href="study/admin" target="_blank" rel="noopener">Open the administration in a window of its
own</a></p>
<iframe src="study/admin" title="Administration of the studies" loading="lazy"
  style="width: 100%; height: 80vh; border: 0"></iframe>
"""


def build_admin_tab() -> gr.HTML:
    """Put the researcher's page into the Blocks or Tab that is open; `study.admin.admin_router` must be served beside.

    No value of a study passes through Gradio, and whoever has no password sees a form that asks for one.
    """
    return gr.HTML(ADMIN_SHELL, css_template=CSS, elem_id="study-admin", apply_default_css=False)
