"""The models that a server offers: loaded on first use, and unloaded if others need the memory.

names ─ describe ─ ServedModel, ... ─ choose (by a request) ─ use ─┬─ is loaded ──────────────────────► Qwen3TTS
                                                                   └─ load, after the least recently
                                                                      used idle ones were unloaded ───► Qwen3TTS
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlx.utils import tree_reduce

from ..capabilities import MODEL_KINDS, MODEL_NAMES, match, speakers
from ..checkpoint.load import SPEECH_TOKENIZER, read_config
from ..config.model import ModelConfig
from ..demo import registry as demo
from ..errors import RequestError
from ..hub import resolve
from ..suggest import unknown
from ..tts import Qwen3TTS
from .problem import Problem
from .workers import Workers

# What clients of OpenAI send if nothing else was set: the model that suits the request.
ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "default")
LOADING_SECONDS = 5  # after which a client may come again while the first model is loaded


@dataclass(eq=False)
class ServedModel:
    """A model that a server offers."""

    name: str  # in a request: a hub id, the name of a built-in model, or of a directory, without its path
    source: str  # what from_pretrained takes
    config: ModelConfig
    size: int  # bytes: of the files, and once it was loaded of its weights
    tts: Qwen3TTS | None = None  # None: not loaded
    loading: asyncio.Task[None] | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list)  # those that wait for it to be loaded
    users: int = 0  # requests under way
    last_used: float = 0.0

    @property
    def kind(self) -> str:
        """ "custom_voice", "voice_design" or "base"."""
        return self.config.tts_model_type

    @property
    def speakers(self) -> list[str]:
        """The preset voices."""
        return speakers(self.config)


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded; see Qwen3TTS.from_pretrained."""

    dtype: str | None = None
    revision: str | None = None
    adapter: str | None = None
    batch_size: int = 1


def describe(source: str, options: LoadOptions) -> ServedModel:
    """Return a model that is not loaded yet; a hub id is downloaded now. Raises as Qwen3TTS.from_pretrained."""
    with resolve(source, progress=True, revision=options.revision) as directory:
        is_path = source not in demo.NAMES and directory == Path(source).expanduser()
        name = directory.resolve().name if is_path else source
        files = [*directory.glob("*.safetensors"), *(directory / SPEECH_TOKENIZER).glob("*.safetensors")]
        return ServedModel(name, source, read_config(directory), sum(path.stat().st_size for path in files))


def load(served: ServedModel, options: LoadOptions) -> Qwen3TTS:
    """Load a model and compile its kernels."""
    tts = Qwen3TTS.from_pretrained(
        served.source, options.dtype, progress=True, revision=options.revision, adapter=options.adapter
    )
    tts.warm_up(options.batch_size)
    return tts


def size_of(tts: Qwen3TTS) -> int:
    """Return the bytes of a model's weights, without the codec's."""
    worker = tts.engine.worker
    return worker.run(lambda: tree_reduce(lambda total, array: total + array.nbytes, tts.network.parameters(), 0))


class Models:
    """Loads and unloads models. To be used on one event loop, except for the constructor."""

    def __init__(
        self,
        sources: Sequence[str],
        options: LoadOptions,
        workers: Workers,
        memory: int | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """memory: bytes of all loaded models together; None: no limit.

        Raises as Qwen3TTS.from_pretrained, and RequestError for two models of one name.
        """
        self.all = [describe(source, options) for source in sources]
        names = [served.name.lower() for served in self.all]
        for name in names:
            if names.count(name) > 1:
                raise RequestError(f"two models have the name {name!r}: rename a directory, or leave one out", "model")
        if options.adapter is not None and len(self.all) > 1:
            raise RequestError("adapter goes with one model: leave the others out", "adapter", "model")
        self.ready = False  # the first model was loaded
        self._options = options
        self._workers = workers
        self._memory = memory
        self._log = log or (lambda _: None)
        self._turn = asyncio.Lock()  # one model is loaded at a time
        self._needs_room = False  # a model waits until another one is idle
        self._idle = asyncio.Event()

    @property
    def default(self) -> ServedModel:
        """The first model."""
        return self.all[0]

    def of_kind(self, kind: str) -> list[ServedModel]:
        """Return the models of a type."""
        return [served for served in self.all if served.kind == kind]

    def named(self, name: str) -> ServedModel:
        """Return a model by its name. Raises Problem."""
        found = match(name, [served.name for served in self.all])
        if found is None:
            names = [served.name for served in self.all]
            message = unknown("model", name, names, f"this server has: {', '.join(names)}")
            raise Problem(404, message, "model", "model_not_found")
        return next(served for served in self.all if served.name == found)

    def choose(
        self, name: str | None, task_type: str | None, suits: Callable[[ServedModel], bool], kind: str | None = None
    ) -> ServedModel:
        """Return the model for a request: by its name, or else the first that suits it.

        task_type: the type that the request asks for. suits: whether a model has the request's voice. kind: the type
        that the request needs, because of its voice. Raises Problem.
        """
        if name is not None and name.lower() not in ALIASES:
            served = self.named(name)
            if task_type is not None and served.kind != task_type:
                raise Problem(
                    400, f"{served.name} is a {MODEL_KINDS[served.kind]} model: name another, or leave task_type out",
                    "task_type",
                )  # fmt: skip
            return served
        needed = task_type or kind
        candidates = self.all if needed is None else self.of_kind(needed)
        if not candidates:
            kinds = ", ".join(sorted({MODEL_KINDS[served.kind] for served in self.all}))
            message = f"this request needs {MODEL_NAMES[needed or '']}, and this server has only: {kinds}"
            raise Problem(400, message, "model")
        return next((served for served in candidates if suits(served)), candidates[0])

    @asynccontextmanager
    async def use(self, served: ServedModel) -> AsyncIterator[Qwen3TTS]:
        """Yield a loaded model, which stays loaded meanwhile.

        Raises Problem while the first model is loaded at the start, and if a model cannot be loaded.
        """
        if served is self.default and not self.ready:
            raise Problem(
                503, "the model is being loaded: try again soon", code="model_loading",
                headers={"Retry-After": str(LOADING_SECONDS)},
            )  # fmt: skip
        if served.tts is None or self._needs_room:  # behind a request that waits for another model
            await self._wait_for(served)
        else:
            served.users += 1
        assert served.tts is not None
        try:
            yield served.tts
        finally:
            self._release(served)

    async def load_default(self) -> None:
        """Load the first model, so that the server is ready. Raises as Qwen3TTS.from_pretrained."""
        async with self._turn:
            await self._load(self.default)
        self.ready = True

    async def unload_all(self) -> None:
        """Free the memory of all models."""
        for served in self.all:
            await self._unload(served)

    def _release(self, served: ServedModel) -> None:
        served.users -= 1
        served.last_used = time.monotonic()
        self._idle.set()

    async def _wait_for(self, served: ServedModel) -> None:
        """Wait until a model is loaded and counts us as a user. Raises Problem."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        served.waiting.append(turn)
        if served.loading is None:
            served.loading = asyncio.ensure_future(self._load_in_turn(served))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(served)
            raise

    async def _load_in_turn(self, served: ServedModel) -> None:
        """Load a model, after those that were asked for before, for all that wait for it. They may leave meanwhile."""
        problem: Problem | None = None
        async with self._turn:
            try:
                if served.tts is None:
                    await self._load(served)
            except Exception as error:  # noqa: BLE001  (whoever waits is told)
                self._log(f"cannot load {served.name}: {error}")
                problem = Problem(500, f"{served.name} cannot be loaded: see the server's log", "model")
            served.loading = None
            waiting = [turn for turn in served.waiting if not turn.done()]
            served.waiting.clear()
            for turn in waiting:
                if problem is not None:
                    turn.set_exception(problem)
                else:  # it is in use now, so that no other model takes its place before they go on
                    served.users += 1
                    turn.set_result(None)

    async def _load(self, served: ServedModel) -> None:
        await self._make_room(served)
        began = time.monotonic()
        served.tts = await self._workers.slow(partial(load, served, self._options))
        served.config = served.tts.config  # with the speakers of an adapter
        served.size = max(served.size, await self._workers.slow(partial(size_of, served.tts)))
        self._log(f"loaded {served.name} in {time.monotonic() - began:.1f} s")

    async def _make_room(self, served: ServedModel) -> None:
        """Unload idle models, the least recently used first, until another one fits; wait until enough are idle."""
        if self._memory is None:
            return
        try:
            while loaded := [one for one in self.all if one.tts is not None]:
                if sum(one.size for one in loaded) + served.size <= self._memory:
                    return
                idle = [one for one in loaded if not one.users]
                if idle:
                    await self._unload(min(idle, key=lambda one: one.last_used))
                    continue
                self._needs_room = True
                self._idle.clear()
                await self._idle.wait()
        finally:
            self._needs_room = False

    async def _unload(self, served: ServedModel) -> None:
        tts = served.tts
        served.tts = None
        if tts is not None:
            await self._workers.slow(tts.unload)
            self._log(f"unloaded {served.name}")
