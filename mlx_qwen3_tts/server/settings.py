"""What a server permits: limits, and who may talk to it."""

from dataclasses import dataclass, field

from ..generation.listen import BATCH_SIZE

DEFAULT_PORT = 8880
MEGABYTE = 10**6


@dataclass(frozen=True)
class Settings:
    """The settings of a server. The command line has a flag for most of them (cli/serve.py)."""

    api_key: str | None = None  # None: no key is needed
    hosts: frozenset[str] = frozenset()  # names in the Host header that are accepted as well
    voice_aliases: dict[str, str] = field(default_factory=dict)  # by name in lower case: what it stands for
    batch_size: int = BATCH_SIZE  # requests that are spoken side by side
    queue_size: int = 32  # requests that wait; more are refused
    time_limit: float = 600.0  # seconds that a request may take, with its time in the queue
    max_text: int = 4096  # characters, as in OpenAI's API
    max_upload: int = 10 * MEGABYTE  # bytes of a clip
    max_ref_seconds: float = 30.0  # the longest clip
    memory: int | None = None  # bytes of all loaded models; None: no limit
    log_text: bool = False

    @property
    def max_body(self) -> int:
        """Bytes of a JSON body: a clip in base64, and texts."""
        return self.max_upload * 4 // 3 + 16 * self.max_text + 2**16
