// Requests to the server: the key, and errors as one line.

const STORED = "mlx-qwen3-tts-key";
const BUSY_RETRIES = 5;

export class ServerError extends Error {
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let askForKey = async () => null;
let asking = null; // one question for all requests that wait for a key

// ask: returns the key that the user gives, or null. wrong: the last one was refused.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export async function request(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await send(path, { ...options, headers });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401 || !(await newKey(key))) throw error;
  }
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

// Speak; if the queue is full, wait as long as the server says and try again.
export async function speech(fields, signal) {
  const body = JSON.stringify({ ...fields, response_format: "pcm" });
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body, signal };
  for (let attempt = 1; ; attempt++) {
    try {
      return await request("/v1/audio/speech", options);
    } catch (error) {
      if (error.status !== 429 || attempt > BUSY_RETRIES) throw error;
      await pause(error.retryAfter || 2, signal);
    }
  }
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("the server does not answer: is it still running?");
  }
}

async function errorOf(response) {
  let message = `the server answers with status ${response.status}`;
  try {
    message = (await response.json()).error.message || message;
  } catch {
    // not our server's JSON: a proxy's page
  }
  return new ServerError(message, response.status, Number(response.headers.get("Retry-After")) || 0);
}

async function newKey(refused) {
  if (sessionStorage.getItem(STORED) !== refused) return true; // another request has asked meanwhile
  asking ??= askForKey(Boolean(refused)).finally(() => (asking = null));
  const key = await asking;
  if (!key) return false;
  sessionStorage.setItem(STORED, key);
  return true;
}
