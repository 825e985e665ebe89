// The page's flow: photos and a height in; progress; then the body, or what to do differently.

import * as client from "./client.js";
import { Form } from "./form.js";
import { showConfidence, showMeasures } from "./measures.js";
import { DropZone } from "./photos.js";
import { ProgressView } from "./progress.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const progress = new ProgressView({ bar: $("bar"), text: $("bar-text"), number: $("bar-number"), steps: $("steps") });
const zones = Object.fromEntries(
  [...document.querySelectorAll(".drop")].map((element) => [
    element.dataset.view,
    new DropZone(element, () => (usesSample = false)),
  ]),
);
const form = new Form($("form"), () => shown && showNumbers());

let usesSample = false; // the photos in the zones are the sample person's
let truth = null; // what is true of the sample person
let shown = null; // the job whose body is on the stage
let viewer = null;
let running = new AbortController();

function setState(state) {
  stage.dataset.state = state;
  const busy = state === "working";
  $("submit").disabled = busy;
  $("sample").disabled = busy;
  $("submit").textContent = busy ? "Measuring …" : "Measure me";
  if (state !== "start") bringIntoView(stage);
}

function bringIntoView(element) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.4) element.scrollIntoView({ behavior: calm ? "auto" : "smooth" });
}

// -- making ---------------------------------------------------------------------------------
async function submit() {
  if (!zones.front.file) {
    zones.front.complain("Please add a photo from the front.");
    zones.front.input.focus();
    return;
  }
  const details = form.read();
  if (!details) return;
  const sample = usesSample;
  progress.show(0, { restart: true });
  setState("working");
  stage.focus({ preventScroll: true });
  try {
    const job = { ...details, frontPhotoUrl: await client.upload(zones.front.file) };
    if (zones.side.file) job.sidePhotoUrl = await client.upload(zones.side.file);
    const { jobId } = await client.createJob(job);
    if (sample) sessionStorage.setItem(`sample-${jobId}`, "1");
    history.replaceState(null, "", `#job=${jobId}`);
    await followJob(jobId);
  } catch (error) {
    showError(error.message);
  }
}

async function followJob(jobId) {
  running.abort();
  running = new AbortController();
  progress.show(3);
  const job = await client.follow(jobId, (now) => progress.show(now.progress ?? 3), { signal: running.signal });
  if (!job) return;
  if (job.status === "failed") return showError(job.error ?? "");
  await showResult(job);
}

// -- showing --------------------------------------------------------------------------------
async function showResult(job) {
  const files = await client.getFiles(job.jobId);
  shown = job;
  setState("done");
  showNumbers();
  const { confidence, warnings } = job.avatar.qualityReport;
  showConfidence($("confidence"), confidence);
  $("warnings").replaceChildren(...(warnings ?? []).map((text) => textOf("li", text)));
  $("download").href = files["avatar.glb"];
  showOutlines(files);
  viewer ??= makeViewer();
  await viewer.show(files["avatar.glb"]);
  stage.dataset.drawn = job.jobId;
}

function showNumbers() {
  const isSample = sessionStorage.getItem(`sample-${shown.jobId}`) !== null;
  const targets = { head: $("table-head"), body: $("table-body"), note: $("off-by") };
  const real = isSample && truth ? truth.measurements : null;
  $("result").classList.toggle("compared", Boolean(real));
  $("result-title").textContent = isSample ? "The sample person" : "Your body";
  showMeasures(targets, shown.avatar.measurements, real, form.imperial);
}

function makeViewer() {
  const made = new Viewer($("canvas"), {
    onSpin: (on) => $("spin").setAttribute("aria-pressed", String(on)),
  });
  $("spin").addEventListener("click", () => made.spin(!made.spinning));
  for (const button of document.querySelectorAll("[data-turn]"))
    button.addEventListener("click", () => {
      made.spin(false);
      made.face(Number(button.dataset.turn));
    });
  return made;
}

function showOutlines(files) {
  const figures = [];
  for (const view of ["front", "side"]) {
    const drawn = files[`overlay_${view}.png`];
    if (!drawn) continue;
    const pictures = document.createElement("div");
    pictures.className = "pictures";
    if (zones[view].file) pictures.append(picture(URL.createObjectURL(zones[view].file), `The ${view} photo`));
    const outline = picture(drawn, `The ${view} photo with the outline of the fitted body`);
    outline.className = "drawn";
    pictures.append(outline);
    const figure = document.createElement("figure");
    figure.append(pictures, textOf("figcaption", view === "front" ? "Front" : "Side"));
    figures.push(figure);
  }
  $("outline-list").replaceChildren(...figures);
  $("outlines").hidden = figures.length === 0;
}

function picture(url, alt) {
  const image = new Image();
  image.src = url;
  image.alt = alt;
  // A photo that this browser cannot show (HEIC) leaves the drawn one alone.
  image.addEventListener("error", () => image.remove());
  return image;
}

function textOf(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

/** `error` is "CODE: sentence", from the worker, or a sentence of ours. */
function showError(error) {
  const [, code, text] = /^([A-Z][A-Z0-9_]+):\s*([\s\S]+)$/.exec(error) ?? [null, "", error];
  $("error-advice").textContent = text || "The body could not be made. Please try again.";
  $("error-code").textContent = code;
  setState("failed");
  $("retry").focus({ preventScroll: true });
}

function startAgain() {
  running.abort();
  history.replaceState(null, "", location.pathname);
  setState("start");
  bringIntoView($("form"));
  zones.front.input.focus({ preventScroll: true });
}

// -- the sample -----------------------------------------------------------------------------
async function runSample() {
  try {
    await zones.front.take(await client.samplePhoto("front"));
    await zones.side.take(await client.samplePhoto("side"));
    form.fill(truth);
    usesSample = true;
    await submit();
  } catch (error) {
    showError(error.message);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("sample").addEventListener("click", runSample);
$("retry").addEventListener("click", startAgain);
$("again").addEventListener("click", () => {
  Object.values(zones).forEach((zone) => zone.clear());
  form.fill({ heightCm: null });
  startAgain();
});
$("outline-switch").addEventListener("change", (event) =>
  $("outline-list").classList.toggle("bare", !event.target.checked),
);
// A photo dropped beside a zone must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

truth = await client.sampleTruth();
$("sample").hidden = !truth;
const resumed = /^#job=(\w+)$/.exec(location.hash)?.[1];
if (resumed) {
  setState("working");
  progress.show(3, { restart: true });
  await followJob(resumed).catch((error) => showError(error.message));
}
