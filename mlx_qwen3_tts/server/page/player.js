// Plays samples while they come: each piece is scheduled at the end of the last one.
//
// If the server is slower than speech, the queue runs empty. Then the player waits until more is there than the last
// time, so that a slow machine makes few long pauses and not many short ones. (An AudioWorklet would need HTTPS if the
// server is another machine.)

const LEAD = 0.2; // seconds that are there before the first sample is played
const MAX_LEAD = 3;
const LATENCY = 0.05; // seconds from the scheduling of the first piece to its sound

export class Player {
  #context = null;
  #output = null;
  #sources = new Set();
  #waiting = []; // pieces that are not scheduled yet: Int16Array
  #waitingLength = 0;
  #scheduled = []; // {from, to, start}: samples of the stream, and the context's time of the first
  #next = 0; // the time at which the last piece ends
  #lead = LEAD;
  #closed = false; // no more pieces come
  #played = 0; // samples of pieces that were played to their end

  received = 0; // samples
  underruns = 0;
  peak = 0; // of what has sounded, 0 to 1

  // Call this in the handler of a key or a button: browsers let no page sound by itself.
  begin(sampleRate) {
    this.stop();
    if (this.#context?.sampleRate !== sampleRate) {
      this.#context?.close();
      this.#context = new AudioContext({ sampleRate });
      this.#output = this.#context.createAnalyser();
      this.#output.connect(this.#context.destination);
    }
    this.#context.resume();
    this.#closed = false;
    this.#lead = LEAD;
    this.#next = this.#played = this.received = this.underruns = this.peak = 0;
  }

  get sampleRate() {
    return this.#context.sampleRate;
  }

  push(samples) {
    this.received += samples.length;
    this.#waiting.push(samples);
    this.#waitingLength += samples.length;
    this.#schedule();
  }

  // Play what is left.
  end() {
    this.#closed = true;
    this.#schedule();
  }

  stop() {
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#waiting = [];
    this.#waitingLength = 0;
    this.#scheduled = [];
    this.#closed = true;
  }

  // Number of samples that have sounded.
  heard() {
    const now = this.#context?.currentTime ?? 0;
    const length = ({ from, to }) => (to - from) / this.sampleRate;
    while (this.#scheduled.length && this.#scheduled[0].start + length(this.#scheduled[0]) <= now) {
      this.#played = this.#scheduled.shift().to;
    }
    const piece = this.#scheduled[0];
    if (!piece || piece.start > now) return this.#played;
    return piece.from + Math.floor((now - piece.start) * this.sampleRate);
  }

  get finished() {
    return this.#closed && this.heard() >= this.received;
  }

  // Measure what sounds now.
  listen() {
    if (!this.#output) return;
    const wave = new Float32Array(this.#output.fftSize);
    this.#output.getFloatTimeDomainData(wave);
    for (const value of wave) this.peak = Math.max(this.peak, Math.abs(value));
  }

  #schedule() {
    if (!this.#waitingLength) return;
    const now = this.#context.currentTime;
    if (this.#next < now) {
      const isFirst = this.#next === 0;
      if (!this.#closed && this.#waitingLength < this.#lead * this.sampleRate) return;
      if (!isFirst) {
        this.underruns++;
        this.#lead = Math.min(MAX_LEAD, 2 * this.#lead);
      }
      this.#next = now + LATENCY;
    }
    let from = this.received - this.#waitingLength;
    for (const samples of this.#waiting) {
      this.#play(samples, from);
      from += samples.length;
    }
    this.#waiting = [];
    this.#waitingLength = 0;
  }

  #play(samples, from) {
    const buffer = this.#context.createBuffer(1, samples.length, this.sampleRate);
    const floats = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) floats[i] = samples[i] / 32768;
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#output);
    source.onended = () => this.#sources.delete(source);
    source.start(this.#next);
    this.#sources.add(source);
    this.#scheduled.push({ from, to: from + samples.length, start: this.#next });
    this.#next += samples.length / this.sampleRate;
  }
}
