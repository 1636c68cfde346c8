// The user's voices: listed, removed, and made of a clip that is chosen, dropped or recorded.

import { json } from "./api.js";
import { Recorder } from "./recorder.js";
import { asWav } from "./wav.js";

const READ_BY_SERVER = /\.(wav|flac|mp3|ogg)$/i;
const $ = (id) => document.getElementById(id);

export class Library {
  #clip = null; // a File or Blob
  #recorder = new Recorder();

  // limits: of the server. changed(name): a voice was made (its name) or removed (null). use(name): speak in it.
  constructor({ limits, changed, use }) {
    this.limits = limits;
    this.changed = changed;
    this.use = use;
    $("clip").addEventListener("change", () => this.#run(() => this.#choose($("clip").files[0])));
    $("record").hidden = !Recorder.available;
    $("record").addEventListener("click", () => this.#run(() => this.#record()));
    $("make").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(() => this.#save());
    });
    this.#takeDrops();
  }

  show(names) {
    $("no-voices").hidden = names.length > 0;
    $("voices").replaceChildren(
      ...names.map((name) => {
        const item = document.createElement("li");
        const label = document.createElement("span");
        label.textContent = name;
        item.append(
          label,
          button("Use", `Speak in the voice ${name}`, () => this.use(name)),
          button("Remove", `Remove the voice ${name}`, () => this.#run(() => this.#remove(name))),
        );
        return item;
      }),
    );
  }

  async #run(work) {
    $("make-error").textContent = $("make-status").textContent = "";
    try {
      await work();
    } catch (error) {
      $("make-error").textContent = error.message;
      $("new-voice").open = true;
    }
  }

  #takeDrops() {
    const drop = $("drop");
    const over = (event) => {
      event.preventDefault();
      drop.classList.toggle("over", event.type === "dragover");
    };
    drop.addEventListener("dragover", over);
    drop.addEventListener("dragleave", over);
    drop.addEventListener("drop", (event) => {
      over(event);
      const file = event.dataTransfer.files[0];
      if (file) this.#run(() => this.#choose(file));
    });
  }

  async #choose(file) {
    if (!file) return;
    const isRead = READ_BY_SERVER.test(file.name ?? "");
    const clip = isRead ? file : await asWav(file);
    if (clip.size > this.limits.upload_bytes) {
      throw new Error(`this file has more than ${this.limits.upload_bytes / 1e6} MB: choose a shorter clip`);
    }
    this.#clip = clip;
    $("clip-name").textContent = file.name ?? "your recording";
    if ($("preview").src) URL.revokeObjectURL($("preview").src);
    $("preview").src = URL.createObjectURL(clip);
    $("preview").hidden = false;
  }

  async #record() {
    if (this.#recorder.running) {
      this.#recorder.stop();
      return;
    }
    const shown = (seconds) => ($("clip-name").textContent = `recording, ${seconds} s: read some sentences aloud`);
    try {
      const recording = this.#recorder.record(this.limits.clip_seconds, () => {
        $("record").textContent = "Stop recording";
        $("record").setAttribute("aria-pressed", "true");
      }, shown);
      await this.#choose(await recording);
    } finally {
      $("record").textContent = "Record";
      $("record").setAttribute("aria-pressed", "false");
      if (!this.#clip) $("clip-name").textContent = "or drop one here";
    }
  }

  async #save() {
    if (!this.#clip) throw new Error("choose, drop or record a clip first");
    const name = $("name").value.trim();
    const form = new FormData();
    form.append("audio_sample", this.#clip, this.#clip.name ?? "recording.wav");
    form.append("name", name);
    form.append("consent", String($("consent").checked));
    const transcript = $("transcript").value.trim();
    if (transcript) form.append("ref_text", transcript);
    $("save").disabled = true;
    $("make-status").textContent = "The voice is being made.";
    try {
      const made = await json("/v1/audio/voices", { method: "POST", body: form });
      this.#clear();
      await this.changed(made.name);
      $("make-status").textContent = [`The voice ${made.name} was saved.`, ...(made.warnings ?? [])].join(" ");
    } catch (error) {
      $("make-status").textContent = "";
      throw error;
    } finally {
      $("save").disabled = false;
    }
  }

  #clear() {
    this.#clip = null;
    $("make").reset();
    URL.revokeObjectURL($("preview").src);
    $("preview").removeAttribute("src");
    $("preview").hidden = true;
    $("clip-name").textContent = "or drop one here";
  }

  async #remove(name) {
    const dialog = $("remove-dialog");
    $("remove-title").textContent = `Remove the voice ${name}?`;
    if (!(await answer(dialog))) return;
    await json(`/v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" });
    await this.changed(null);
    $("make-status").textContent = `The voice ${name} was removed.`;
    ($("voices").querySelector("button") ?? $("new-voice").querySelector("summary")).focus();
  }
}

// Show a dialog; return whether its first button was taken.
export function answer(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.querySelector(".cancel").onclick = () => dialog.close("");
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
    dialog.showModal();
  });
}

function button(text, label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", action);
  return made;
}
