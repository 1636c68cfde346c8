"""`say --lines`: a file of its own for each line of a text file.

lines ─ BatchListener ─ (index, attempt, chunk) ─ LineFiles ─ 0001.wav, 0002.wav, ...
"""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ..audio.write import AudioWriter, check_writable, open_writer
from ..errors import AudioError, GenerationError, RequestError
from ..generation.listen import BatchListener
from ..request import Request
from ..result import AudioChunk
from ..tts import Qwen3TTS
from .batch import Speed, request_for_whole_text
from .console import note, warnings_as_notes
from .flags import error_message

Line = tuple[int, str]  # its number in the file, from 1, and its text


def read_lines(path: str) -> list[Line]:
    """Return the lines of a text file that are not blank. Raises RequestError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not UTF-8; convert it first") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"cannot read {path}: {reason}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise RequestError(f"{path} has no text")
    return lines


class LineFiles:
    """The audio files of lines. Each has its name only when it is whole."""

    def __init__(self, directory: str, suffix: str, lines: list[Line], sample_rate: int) -> None:
        """Raises AudioError if the directory cannot be made or written."""
        width = max(4, len(str(lines[-1][0])))
        self.paths = [Path(directory) / f"{number:0{width}}.{suffix}" for number, _ in lines]
        self.count = 0  # files that are whole
        self._sample_rate = sample_rate
        self._writers: dict[int, AudioWriter] = {}
        self._attempts: dict[int, int] = {}
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"cannot make the directory {directory}: {error.strerror}") from None
        check_writable(self.paths[0])

    def write(self, index: int, attempt: int, chunk: AudioChunk) -> None:
        """Write the next chunk of a line. Raises AudioError."""
        writer = self._writers.get(index)
        if writer is None:
            writer = open_writer(str(self.paths[index]), self._sample_rate)
            self._writers[index] = writer
        elif self._attempts[index] != attempt:
            writer.restart()  # the first attempt ran away
        self._attempts[index] = attempt
        writer.write(chunk.audio)

    def close(self, index: int) -> None:
        """Complete the file of a line. Raises AudioError."""
        self._writers.pop(index).close()
        self.count += 1

    def discard(self, index: int) -> None:
        """Drop the file of a line."""
        writer = self._writers.pop(index, None)
        if writer is not None:
            writer.abort()

    def discard_all(self) -> None:
        """Drop all files that are not whole."""
        for index in list(self._writers):
            self.discard(index)


def speak_lines(
    tts: Qwen3TTS, lines: list[Line], request: Request, directory: str, suffix: str, batch_size: int
) -> None:
    """Speak each line into a file of its own, several at a time.

    A line that fails is reported, and the others are spoken. Raises GenerationError at the end if lines failed.
    """
    failed: list[int] = []
    files = LineFiles(directory, suffix, lines, tts.sample_rate)

    def requests() -> Iterator[Request]:
        for number, (_, text) in enumerate(lines):
            yield request_for_whole_text(request, text, number)

    def fail(index: int, error: Exception) -> None:
        failed.append(index)
        files.discard(index)
        note(f"line {lines[index][0]}: {error_message(error)}")

    listener = BatchListener(tts.scheduler, requests(), batch_size, retries=True, on_error=fail)
    speed = Speed(tts, listener)
    try:
        with warnings_as_notes(), tqdm(bar_format="{desc}", disable=None, leave=False) as bar:
            for index, attempt, chunk in listener.chunks():
                files.write(index, attempt, chunk)
                if chunk.is_final and not listener.is_under_way(index):
                    files.close(index)
                bar.set_description_str(f"{files.count} of {len(lines)} lines, {speed}")
    finally:
        files.discard_all()
        note(f"{directory}: {files.count} of {len(lines)} lines in {speed.elapsed:.2f} s: {speed}")
    if failed:
        raise GenerationError(f"{len(failed)} of {len(lines)} lines failed; speak them again with another --seed")
