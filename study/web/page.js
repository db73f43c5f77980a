// The standalone page: mounts the study that its own address names.
import { mount } from "./participant.js";

const slug = decodeURIComponent(location.pathname.replace(/\/+$/, "").split("/").pop());
mount(document.getElementById("study"), { slug, standalone: true });
