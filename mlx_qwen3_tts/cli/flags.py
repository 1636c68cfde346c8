"""Errors of the library, which name Python arguments, in the words of the command line."""

import re

from ..errors import PlaybackError, Qwen3TTSError, TrainingError
from ..program import program_name

# What is not spelled like its flag. The text of `say` has no flag.
FLAGS = {
    "batch_size": "--batch",
    "folder_format": "--out-format",
    "max_seconds": "--max-ref-seconds",
    "replace": "--force",
    "tail": "--ref-tail",
    "text": "text",
    "trim": "--trim-silence",
}


# What also has a short name.
SHORT_FLAGS = {"voice": "-v"}

# Arguments of training that other commands have under another name.
TRAINING_FLAGS = {"max_seconds": "--max-seconds", "share": "--held-out"}


def flag_of(argument: str) -> str:
    """Return the flag of an argument of the library."""
    if argument == "clone_voice":
        return f"`{program_name()} clone`"
    return FLAGS.get(argument) or "--" + argument.replace("_", "-")


def error_message(error: Exception) -> str:
    """Return an error's message with flags in place of the arguments that the error names."""
    message = str(error)
    if isinstance(error, Qwen3TTSError):
        for argument in error.arguments:
            flag = TRAINING_FLAGS.get(argument) if isinstance(error, TrainingError) else None
            message = with_flag(message, argument, flag)
    if isinstance(error, PlaybackError):
        message += "; -o FILE writes a file instead"
    return message


def with_flag(message: str, argument: str, flag: str | None = None) -> str:
    """Replace an argument, with its value if there is one: dtype, force=True, stop_runaway=False, scales='search'."""
    flag = flag or flag_of(argument)

    def written(match: re.Match[str]) -> str:
        switch, value = match["switch"], match["value"]
        if switch == "False":
            return flag.replace("--", "--no-", 1)
        return flag if value is None else f"{flag} {value}"

    # As a word of its own: a quoted value and a file name in a message stay as they are.
    value = r"(?:=(?:(?P<switch>True|False)|'(?P<value>[^']*)'))?"
    return re.sub(rf"(?<![\w/.'\"-]){argument}{value}(?![\w/.'\"-])", written, message)
