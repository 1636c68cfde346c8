"""The errors that this package raises.

    Qwen3TTSError ─┬─ CheckpointError   a model directory that is incomplete, damaged or not supported
                   ├─ DownloadError     a model that cannot be downloaded
                   ├─ RequestError      a request that the model cannot serve (also a ValueError)
                   ├─ AudioError        audio that cannot be read or written
                   ├─ VoiceError        a voice file that cannot be read or written
                   ├─ ConversionError   a conversion that is invalid or has failed
                   ├─ PlaybackError     audio that cannot be played
                   ├─ TrainingError     training data or options that are invalid
                   ├─ DocumentError     a book, its marks or a pronunciation list that cannot be read
                   ├─ BookError         a book whose audio cannot be made or written
                   └─ GenerationError   a computation without usable results
                      └─ BatchError     some requests of a batch have failed

Each message is one line: what is wrong, then what to do. The command line prints it and exits with 1.
"""

from typing import Any

MAX_MESSAGE = 600  # characters: a message may quote a damaged file


class Qwen3TTSError(Exception):
    """Base class of all errors of this package.

    arguments: the Python arguments in the message; the command line shows their flags instead (cli/flags.py).
    about: the argument that is wrong, if the message does not name it; the server names its field.
    """

    def __init__(self, message: str, *arguments: str, about: str | None = None) -> None:
        super().__init__(message)
        self.arguments = arguments
        self.about = about or next(iter(arguments), None)

    def __str__(self) -> str:
        """Return the message as one printable line of limited length, whatever it quotes."""
        text = super().__str__()
        if len(text) > MAX_MESSAGE:
            text = f"{text[:MAX_MESSAGE]} ..."
        return printable(text)


def printable(text: str) -> str:
    """Return `text` with control characters and line ends as escape sequences, which a terminal does not obey."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


class CheckpointError(Qwen3TTSError):
    """A checkpoint that is incomplete, damaged, or of a kind that this port does not implement."""


class DownloadError(Qwen3TTSError):
    """A model that cannot be downloaded from the Hugging Face Hub."""


class ConversionError(Qwen3TTSError):
    """A conversion that is invalid, or whose result cannot be written."""


class RequestError(Qwen3TTSError, ValueError):
    """A text, voice, language, instruction or option that is invalid for the model."""


class AudioError(Qwen3TTSError):
    """Audio that cannot be read or written."""


class BookError(Qwen3TTSError):
    """A book whose audio cannot be made or written."""


class PlaybackError(Qwen3TTSError):
    """Audio that cannot be played: there is no sound system or no device, or the device has failed."""


class GenerationError(Qwen3TTSError):
    """A computation whose results are not finite."""


class TrainingError(Qwen3TTSError):
    """Training data or training options that are invalid, or a training that failed."""


class DocumentError(Qwen3TTSError):
    """A book, its script marks, or a pronunciation list that cannot be read."""


class BatchError(GenerationError):
    """Some requests of a batch failed, while the others went on to their ends.

    errors: the error of each request that failed, by its index. results: of all requests of `synthesize_batch`, None
    for those that failed.
    """

    def __init__(self, errors: dict[int, Exception], results: list[Any] | None = None) -> None:
        index, first = next(iter(errors.items()))
        others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"request {index} failed: {first}{others}")
        self.errors = errors
        self.results = results


class VoiceError(Qwen3TTSError):
    """A voice or voice file that is invalid, damaged, edited, of a newer format, or missing."""
