// The select of all voices: each model's presets, its described voice, and the library; and what goes with the choice.

const NAMED = { value: "", text: "Described by the instruction" };

export class VoiceChoice {
  #options = new Map(); // by the option's value: {model, voice}; model null: the server finds it

  constructor(select) {
    this.select = select;
  }

  show(models, voices, chosen = null) {
    const before = chosen ?? this.select.value;
    this.#options.clear();
    const groups = models.map((model) => this.#group(model, voices)).filter(Boolean);
    const library = voices.filter((voice) => voice.type === "library");
    if (library.length) groups.push(this.#library(models, library));
    this.select.replaceChildren(...(groups.length === 1 ? groups[0].children : groups));
    if (this.#options.has(before)) this.select.value = before;
    else this.select.value = this.#default(voices) ?? this.select.options[0]?.value ?? "";
  }

  get empty() {
    return this.#options.size === 0;
  }

  // {models: those that may speak, model, voice}
  get chosen() {
    return this.#options.get(this.select.value) ?? { models: [], model: null, voice: null };
  }

  #group(model, voices) {
    const presets = voices.filter((voice) => voice.type === "preset" && voice.models.includes(model.id));
    const entries = presets.map((voice) => ({ value: voice.name, text: voice.name, voice: voice.name }));
    if (model.instructions === "required") entries.push(NAMED);
    if (!entries.length) return null;
    const group = document.createElement("optgroup");
    group.label = model.id.split("/").pop();
    for (const { value, text, voice } of entries) {
      group.append(this.#option(`${model.id}|${value}`, text, { models: [model], model: model.id, voice: voice ?? null }));
    }
    return group;
  }

  #library(models, library) {
    const group = document.createElement("optgroup");
    group.label = "Your voices";
    for (const { name, models: ids } of library) {
      const able = models.filter((model) => ids.includes(model.id));
      group.append(this.#option(libraryValue(name), name, { models: able, model: null, voice: name }));
    }
    return group;
  }

  #option(value, text, entry) {
    this.#options.set(value, entry);
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    return option;
  }

  #default(voices) {
    const voice = voices.find((one) => one.default);
    return voice && [...this.#options].find(([, entry]) => entry.voice === voice.name && entry.model)?.[0];
  }
}

export function libraryValue(name) {
  return `library|${name}`;
}
