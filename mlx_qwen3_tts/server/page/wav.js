// WAV files of 16-bit samples, one channel.

export const SAMPLE_RATE = 24000; // of the models

// parts: Int16Arrays
export function wavFile(parts, sampleRate) {
  const bytes = parts.reduce((total, part) => total + part.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const tag = (at, text) => [...text].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  tag(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  tag(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, 2 * sampleRate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  tag(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...parts], { type: "audio/wav" });
}

// Decode what the browser can read and the server may not (a recording, m4a, ...) to a WAV file of one channel.
export async function asWav(blob) {
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE); // decodes to this rate
  let audio;
  try {
    audio = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("this file cannot be read as audio: choose a WAV, FLAC, MP3 or Ogg file");
  }
  const samples = new Int16Array(audio.length);
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  for (let i = 0; i < samples.length; i++) {
    const mean = channels.reduce((total, channel) => total + channel[i], 0) / channels.length;
    samples[i] = Math.max(-32768, Math.min(32767, Math.round(32768 * mean)));
  }
  return wavFile([samples], SAMPLE_RATE);
}
