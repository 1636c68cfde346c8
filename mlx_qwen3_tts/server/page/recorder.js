// Records the microphone.

export class Recorder {
  #recorder = null;
  #starting = false; // the browser asks the user

  // Browsers give the microphone only to pages of this machine, or over HTTPS.
  static get available() {
    return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  }

  get running() {
    return this.#recorder !== null || this.#starting;
  }

  // Return what was recorded, in the browser's own format. begun(): the microphone is on. tick(seconds): each second.
  async record(maxSeconds, begun, tick) {
    const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    let stream;
    this.#starting = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
    } catch {
      throw new Error("there is no microphone that this page may use: permit it in the browser, or choose a file");
    } finally {
      this.#starting = false;
    }
    const parts = [];
    const recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    const ended = new Promise((resolve) => (recorder.onstop = resolve));
    this.#recorder = recorder;
    recorder.start();
    begun();
    const timer = this.#watch(maxSeconds, tick);
    await ended;
    clearInterval(timer);
    this.#recorder = null;
    for (const track of stream.getTracks()) track.stop();
    return new Blob(parts, { type: recorder.mimeType });
  }

  stop() {
    this.#recorder?.stop();
  }

  #watch(maxSeconds, tick) {
    const began = performance.now();
    tick(0);
    return setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      tick(Math.floor(seconds));
      if (seconds >= maxSeconds - 0.5) this.stop();
    }, 250);
  }
}
