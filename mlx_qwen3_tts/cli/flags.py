"""Errors of the library, which name Python arguments, in the words of the command line."""

import re

from ..errors import PlaybackError
from ..option import options_of
from ..request import Request, Sampling

FLAGS = {
    "force=True": "--force",
    "max_seconds": "--max-ref-seconds",
    "model='demo'": "--model demo",
    "scales='search'": "--scales search",
    "clone_voice": "`mlx-qwen3-tts clone`",
}
for option_name, _ in (*options_of(Request), *options_of(Sampling)):
    if "_" in option_name:  # the others are words that a message may use in passing
        FLAGS[option_name] = "--" + option_name.replace("_", "-")
# As words of their own: a file name in a message stays as it is.
ARGUMENT = re.compile(r"(?<![\w/.-])(" + "|".join(map(re.escape, FLAGS)) + r")(?![\w/.-])")


def error_message(error: Exception) -> str:
    """Return an error's message with flags in place of arguments."""
    message = ARGUMENT.sub(lambda match: FLAGS[match[0]], str(error))
    if isinstance(error, PlaybackError):
        message += "; -o FILE writes a file instead"
    return message
