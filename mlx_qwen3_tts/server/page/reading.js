// A text, spoken by paragraphs: one request after another, the next one while the last one is heard.
//
//     text ─ split ─ paragraphs ─ speech(...) ─ 16-bit samples ─ Player
//                                 └ not before the paragraph ahead of it is heard

import { ServerError, speech } from "./api.js";
import { SAMPLE_RATE } from "./wav.js";

const PARAGRAPH = 2000; // characters of a request
const PAUSE = 0.35; // seconds between paragraphs

// Split a text at its blank lines, and a paragraph that is too long after a sentence or a word.
export function split(text, limit = PARAGRAPH) {
  const most = Math.max(1, Math.min(limit, PARAGRAPH));
  return text
    .split(/\n[ \t\r]*\n/)
    .map((paragraph) => paragraph.trim())
    .filter(Boolean)
    .flatMap((paragraph) => [...parts(paragraph, most)]);
}

function* parts(paragraph, most) {
  let rest = paragraph;
  while (length(rest) > most) {
    const beginning = [...rest].slice(0, most).join("");
    const sentence = Math.max(...[...beginning.matchAll(/[.!?…]\s|[。！？]/g)].map((end) => end.index + end[0].length), 0);
    const cut = sentence || beginning.search(/\s\S*$/) + 1 || beginning.length;
    yield rest.slice(0, cut).trim();
    rest = rest.slice(cut).trim();
  }
  if (rest) yield rest;
}

// Code points, as the server counts.
function length(text) {
  return [...text].length;
}

export class Reading {
  parts = []; // Int16Arrays: all that came
  starts = []; // of the paragraphs that were begun, in samples
  firstAudio = 0; // seconds from the start to the first samples
  seed = null;
  bytes = 0; // that came
  done = false; // all has come
  #making = 0; // seconds in which the server was at work
  #began = performance.now();
  #asked = 0; // when the request under way was sent; 0: none is

  // fields: of the requests, without the text
  constructor(paragraphs, fields, player) {
    this.paragraphs = paragraphs;
    this.fields = fields;
    this.player = player;
  }

  // Speak all paragraphs; return when all has come. Raises ServerError, and AbortError if the signal says so.
  async run(signal) {
    for (const [index, paragraph] of this.paragraphs.entries()) {
      if (index > 0) {
        await this.#untilHeard(this.starts[index - 1], signal);
        this.#take(new Int16Array(Math.round(PAUSE * this.player.sampleRate)));
      }
      this.starts.push(this.player.received);
      try {
        await this.#speak(paragraph, signal);
      } finally {
        this.#making = this.making;
        this.#asked = 0;
      }
    }
    this.done = true;
    this.player.end();
  }

  // Seconds in which the server was at work.
  get making() {
    return this.#making + (this.#asked ? (performance.now() - this.#asked) / 1000 : 0);
  }

  get seconds() {
    return this.player.received / this.player.sampleRate;
  }

  // The paragraph that sounds; -1 before the first sample.
  get current() {
    const heard = this.player.heard();
    return heard ? this.starts.findLastIndex((start) => start <= heard) : -1;
  }

  async #speak(paragraph, signal) {
    this.#asked = performance.now();
    const fields = { ...this.fields, input: paragraph };
    if (this.seed !== null) fields.seed = this.seed; // one seed for all paragraphs
    const response = await speech(fields, signal);
    this.seed ??= Number(response.headers.get("X-Seed"));
    const rate = Number(response.headers.get("X-Audio-Sample-Rate")) || SAMPLE_RATE;
    if (rate !== this.player.sampleRate) throw new ServerError(`this page plays ${SAMPLE_RATE} Hz, not ${rate} Hz`);
    for await (const samples of this.#samples(response.body.getReader(), signal)) {
      this.firstAudio ||= (performance.now() - this.#began) / 1000;
      this.#take(samples);
    }
  }

  // Yield the samples of a response: a part of it may end inside a sample.
  async *#samples(reader, signal) {
    let odd = new Uint8Array(0);
    for (;;) {
      const { done, value } = await this.#read(reader, signal);
      if (done) return;
      this.bytes += value.length;
      const data = new Uint8Array(odd.length + value.length);
      data.set(odd);
      data.set(value, odd.length);
      const even = data.length - (data.length % 2);
      odd = data.slice(even);
      if (even) yield new Int16Array(data.buffer, 0, even / 2);
    }
  }

  async #read(reader, signal) {
    try {
      return await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      throw new ServerError("the speech has ended early: the server's log says why");
    }
  }

  #take(samples) {
    this.parts.push(samples);
    this.player.push(samples);
  }

  #untilHeard(sample, signal) {
    return new Promise((resolve, reject) => {
      const timer = setInterval(() => {
        if (signal.aborted || this.player.heard() > sample) {
          clearInterval(timer);
          signal.aborted ? reject(signal.reason) : resolve();
        }
      }, 50);
    });
  }
}
