// The page: what is shown, and what keys and buttons do.
//
//     main ─┬─ voices.js   the choice of a voice          api.js     requests, errors, the key
//           ├─ reading.js  a text by paragraphs ─ player.js         what sounds
//           ├─ library.js  the user's voices ─ recorder.js          wav.js  files
//           └─ wave.js     the picture
//
// What happens can be read from the attributes of #app (data-state, data-bytes, ...): the tests do.

import { json, onKeyNeeded, pause } from "./api.js";
import { answer, Library } from "./library.js";
import { Player } from "./player.js";
import { Reading, split } from "./reading.js";
import { libraryValue, VoiceChoice } from "./voices.js";
import { SAMPLE_RATE, wavFile } from "./wav.js";
import { Wave } from "./wave.js";

const TICK = 100; // milliseconds
const LOADING = 1; // seconds between looks whether the model is loaded
const $ = (id) => document.getElementById(id);

const app = $("app");
const player = new Player();
const choice = new VoiceChoice($("voice"));
const wave = new Wave($("wave"));
let models = [];
let limits = {};
let library = null;
let reading = null;
let stopper = null; // of the reading under way

// Speech

async function speak() {
  stop();
  setError("");
  $("status").textContent = "";
  const paragraphs = split($("text").value, limits.characters);
  try {
    if (!paragraphs.length) throw new Error("write a text first");
    const fields = requestFields();
    player.begin(SAMPLE_RATE);
    reading = new Reading(paragraphs, fields, player);
    await run(reading);
  } catch (error) {
    setError(error.message);
    $("text").focus();
  }
}

async function run(mine) {
  const mineStopper = (stopper = new AbortController());
  showParagraphs(mine.paragraphs);
  wave.clear();
  $("playing").hidden = false;
  setState("waiting", "Waiting for the first audio.");
  try {
    await mine.run(mineStopper.signal);
    while (!player.finished) await pause(TICK / 1000, mineStopper.signal);
    setState("done", "Done.");
  } catch (error) {
    if (mineStopper.signal.aborted) return; // by stop(), which has shown it
    player.end(); // what has come is heard, and can be kept
    setState("failed", "");
    $("playing").hidden = !mine.parts.length;
    setError(error.message);
  } finally {
    if (stopper === mineStopper) stopper = null;
    showButtons();
    tick();
  }
}

function stop() {
  if (!stopper && !player.received) return;
  const wasUnderWay = Boolean(stopper);
  stopper?.abort(new DOMException("stopped", "AbortError"));
  stopper = null;
  player.stop();
  if (wasUnderWay) setState("stopped", "Stopped.");
  showButtons();
}

function requestFields() {
  const { model, voice } = choice.chosen;
  const seed = $("seed").value.trim();
  if (seed && !(/^\d+$/.test(seed) && Number.isSafeInteger(Number(seed)))) {
    throw new Error(`the seed must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not ${seed}`);
  }
  const instruction = $("instruction").value.trim();
  return {
    model: model ?? undefined,
    voice: voice ?? undefined,
    language: $("language").value || undefined,
    seed: seed ? Number(seed) : undefined,
    instructions: instruction && !$("instruction").disabled ? instruction : undefined,
  };
}

function download() {
  const url = URL.createObjectURL(wavFile(reading.parts, player.sampleRate));
  const link = document.createElement("a");
  link.href = url;
  link.download = "speech.wav";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// What is shown

function setState(state, message) {
  app.dataset.state = state;
  $("status").textContent = message;
}

function setError(message) {
  $("error").textContent = message.replace(/\s+/g, " ");
}

function showButtons() {
  $("speak").textContent = stopper ? "Stop" : "Speak";
  $("download").disabled = !reading?.parts.length;
}

function showParagraphs(paragraphs) {
  $("paragraphs").hidden = paragraphs.length < 2;
  $("paragraphs").replaceChildren(
    ...paragraphs.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }),
  );
}

function tick() {
  if (!reading) return;
  player.listen();
  const heard = player.heard();
  const { seconds, making, firstAudio } = reading;
  $("first-audio").textContent = firstAudio ? `${Math.round(1000 * firstAudio)} ms` : "…";
  $("speed").textContent = seconds ? `${(seconds / making).toFixed(1)} × real time` : "…";
  $("length").textContent = seconds ? `${seconds.toFixed(1)} s` : "…";
  $("used-seed").textContent = reading.seed ?? "…";
  showCurrent();
  if (stopper && heard && app.dataset.state === "waiting") setState("speaking", speakingMessage(0));
  const counters = { bytes: reading.bytes, samples: player.received, heard, underruns: player.underruns };
  Object.assign(app.dataset, counters, { requests: reading.starts.length, peak: player.peak.toFixed(4) });
  if (stopper) showButtons();
}

function showCurrent() {
  const current = app.dataset.state === "done" ? reading.paragraphs.length : reading.current;
  for (const [index, item] of [...$("paragraphs").children].entries()) {
    const state = index < current ? "spoken" : index === current ? "current" : "waiting";
    if (item.dataset.state === state) continue;
    item.dataset.state = state;
    item.toggleAttribute("aria-current", state === "current");
    if (state !== "current") continue;
    item.setAttribute("aria-current", "step");
    $("paragraphs").scrollTop = item.offsetTop - $("paragraphs").clientHeight / 3;
    if (app.dataset.state === "speaking") $("status").textContent = speakingMessage(current);
  }
}

function speakingMessage(index) {
  const count = reading.paragraphs.length;
  return count > 1 ? `Speaking paragraph ${index + 1} of ${count}.` : "Speaking.";
}

function draw() {
  if (reading && !$("playing").hidden) wave.draw(reading.parts, player.heard());
  requestAnimationFrame(draw);
}

// Voices and models

function showChoice() {
  const { models: able } = choice.chosen;
  const languages = [...new Set(able.flatMap((model) => model.languages))];
  const before = $("language").value;
  $("language").replaceChildren(...languages.map((name) => new Option(name[0].toUpperCase() + name.slice(1), name)));
  if (languages.includes(before)) $("language").value = before;
  const takes = able.some((model) => model.instructions !== "none");
  $("instruction-field").hidden = !models.some((model) => model.instructions !== "none");
  $("instruction").disabled = !takes;
  $("instruction").setAttribute("aria-required", able.some((model) => model.instructions === "required"));
}

async function loadVoices(chosen = null) {
  const { voices } = await json("/v1/audio/voices");
  choice.show(models, voices, chosen);
  library.show(voices.filter((voice) => voice.type === "library").map((voice) => voice.name));
  if (choice.empty) $("status").textContent = "This server has no voices yet: make one below.";
  showChoice();
}

async function load() {
  const listed = await json("/v1/models");
  models = listed.data;
  limits = listed.limits;
  $("model").textContent = models.map((model) => model.id.split("/").pop()).join(", ");
  library = new Library({
    limits,
    changed: (name) => loadVoices(name && libraryValue(name)),
    use: (name) => {
      $("voice").value = libraryValue(name);
      showChoice();
      $("text").focus();
    },
  });
  $("library").hidden = !models.some((model) => model.type === "Base");
  await loadVoices();
  await untilReady();
  app.dataset.ready = "";
}

async function untilReady() {
  for (let first = true; ; first = false) {
    const response = await fetch("/health");
    if (response.ok) break;
    if (first) $("status").textContent = "The model is being loaded.";
    await pause(LOADING);
  }
  if ($("status").textContent.endsWith("loaded.")) $("status").textContent = "The model is ready.";
}

async function askForKey(wasWrong) {
  $("key-title").textContent = wasWrong ? "This key is wrong" : "This server asks for a key";
  $("key").value = "";
  return (await answer($("key-dialog"))) ? $("key").value : null;
}

// Keys and buttons

$("speech").addEventListener("submit", (event) => {
  event.preventDefault();
  stopper ? stop() : speak();
});
$("download").addEventListener("click", download);
$("voice").addEventListener("change", showChoice);
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    speak();
  } else if (event.key === "Escape") {
    stop();
  }
});
for (const type of ["dragover", "drop"]) {
  document.addEventListener(type, (event) => event.preventDefault()); // a clip that misses opens no other page
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) document.querySelector("kbd").textContent = "⌘";
onKeyNeeded(askForKey);
setInterval(tick, TICK);
requestAnimationFrame(draw);
load().catch((error) => setError(error.message));
