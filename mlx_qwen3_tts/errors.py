"""Every error this package raises on purpose.

    Qwen3TTSError ── CheckpointError   a model directory that cannot be used as it is
                  ├─ DownloadError     a model that could not be fetched
                  ├─ RequestError      a request this model cannot serve (also a ValueError)
                  ├─ AudioError        audio that could not be read or written
                  ├─ VoiceError        a voice file that could not be read or written
                  ├─ ConversionError   a conversion that cannot be done, or that failed
                  ├─ PlaybackError     audio that could not be played
                  └─ GenerationError   a computation that went wrong

Each message is one line: what is wrong, then what to do about it. The command line prints it and exits with 1.
"""

LONGEST = 600  # characters of a message: it may quote what a damaged file holds


class Qwen3TTSError(Exception):
    """Base class of the package's own errors."""

    def __str__(self) -> str:
        """The message in one line that a terminal can show, whatever it quotes."""
        text = super().__str__()
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
        return printable(text)


def printable(text: str) -> str:
    """`text` in one line that a terminal can show: control characters of a file's names are spelled out, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class CheckpointError(Qwen3TTSError):
    """A checkpoint that is incomplete, damaged, or of a kind this port does not implement."""


class DownloadError(Qwen3TTSError):
    """A model that could not be fetched from the hub."""


class ConversionError(Qwen3TTSError):
    """A checkpoint that cannot be converted as asked, or could not be written."""


class RequestError(Qwen3TTSError, ValueError):
    """A text, voice, language, instruction or option that the loaded model cannot take."""


class AudioError(Qwen3TTSError):
    """Audio that could not be read or written."""


class PlaybackError(Qwen3TTSError):
    """Sound that could not be put out: no sound system, no device."""


class GenerationError(Qwen3TTSError):
    """A computation that gave no usable numbers."""


class VoiceError(Qwen3TTSError):
    """A voice file that is damaged, edited, of a newer format, or not there."""
