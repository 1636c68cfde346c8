"""The web page of the server, in a headless Chromium."""

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mlx_qwen3_tts
from mlx_qwen3_tts import Request
from mlx_qwen3_tts.audio.formats import pcm16
from mlx_qwen3_tts.server import routes
from tests.support import sounds
from tests.support.browser import chromium, eventually, installed
from tests.support.server import running

FILES = Path(mlx_qwen3_tts.__file__).parent / "server" / "page"
TEXT = "It is ten."
PAUSE = 8400  # samples between paragraphs
CONTROL, ESCAPE, ENTER, TAB, SHIFT = "\ue009", "\ue00c", "\ue007", "\ue004", "\ue008"
TRANSCRIPT = "hello this voice"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if installed() is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    with chromium(tmp_path_factory.mktemp("downloads")) as page:
        yield page


@pytest.fixture
def page(browser, server):
    """The page, just loaded. It may ask no other host, and report no error that a test does not expect."""
    browser.open(server.url)
    yield browser
    browser.press(ESCAPE)
    assert browser.errors() == []
    asked = browser.requested()
    assert {url for url in asked if not url.startswith((f"{server.url}/", f"blob:{server.url}/"))} == set()
    server.wait_until_idle()  # what the page has stopped


@contextmanager
def held_after(monkeypatch, count: int) -> Iterator[None]:
    """Hold back the audio that the server sends inside the block, after some chunks. The parts end inside samples."""
    free = threading.Event()
    write = routes.SpeechEncoder.write
    written = 0
    rest = b""

    async def hold(encoder, chunk):
        nonlocal written, rest
        written += 1
        while written > count and not free.is_set():
            await asyncio.sleep(0.01)
        data = rest + await write(encoder, chunk)
        end = len(data) if chunk.is_final else len(data) - 1
        rest = data[end:]
        return data[:end]

    monkeypatch.setattr(routes.SpeechEncoder, "write", hold)
    try:
        yield
    finally:
        free.set()


def alone(server, text: str, **options) -> np.ndarray:
    """The audio of a request that the library speaks."""
    return server.model(options.pop("model", "demo")).run(Request(text, **options)).audio


def samples_of(file: bytes) -> bytes:
    audio, rate = soundfile.read(io.BytesIO(file), dtype="int16")
    assert rate == 24000
    return audio.tobytes()


def speak(page, text: str = TEXT, **fields) -> None:
    for name, value in {"text": text, **fields}.items():
        page.write(name, value)
    page.click("speak")


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, sounds.speech(2), 24000)
    return path


# Speech


def test_it_is_heard_while_it_is_made(page, server, monkeypatch, spy):
    """Samples sound while the server still makes more; what was heard and saved is what the library makes.

    Voice, language and seed are the ones that were chosen.
    """
    calls = spy(routes, "parse_call")
    page.run(
        "window.pieces = []; const start = AudioBufferSourceNode.prototype.start;"
        "AudioBufferSourceNode.prototype.start = function (when) {"
        " pieces.push([when, when + this.buffer.duration]); start.call(this, when); }"
    )
    with held_after(monkeypatch, 4):
        speak(page, voice="demo|rms", language="english", seed="7")
        page.wait_for("speaking")
        assert eventually(lambda: page.number("heard") > 4800 and page.number("peak") > 0.01)
        assert server.service.active == 1
        assert page.text("speak") == "Stop"
        assert page.text("status") == "Speaking."
        assert page.text("first-audio").endswith(" ms")
        assert eventually(lambda: page.number("heard") == page.number("samples"))  # it waits for more
    page.wait_for("done")
    expected = pcm16(alone(server, TEXT, voice="rms", language="english", seed=7))
    assert page.number("bytes") == len(expected)
    assert page.number("heard") == page.number("samples") == len(expected) // 2
    pieces = np.array(page.run("return pieces"))
    gaps = pieces[1:, 0] - pieces[:-1, 1]
    assert len(gaps) > 2
    assert gaps.min() > -1e-6
    assert sum(gaps > 1e-6) == page.number("underruns") >= 1  # where it had to wait
    assert samples_of(page.downloaded()) == expected
    chosen = {"model": "demo", "voice": "rms", "language": "english", "seed": 7}
    assert calls[0][1][0] == {"input": TEXT, "response_format": "pcm", **chosen}
    assert page.text("used-seed") == "7"
    assert page.text("length") == f"{len(expected) / 48000:.1f} s"
    assert page.text("speed").endswith(" × real time")
    assert page.text("speak") == "Speak"
    assert page.text("status") == "Done."


def test_paragraphs(page, server, spy):
    """They are spoken one after another with one seed; the next one is asked for while its predecessor is heard."""
    texts = [TEXT, "It is one.", "It is five."]
    calls = spy(routes, "parse_call")
    speak(page, "\n\n".join(texts) + "\n \n")
    seen = []
    while page.data()["state"] not in ("done", "failed"):
        current = page.run(
            "const items = [...document.querySelectorAll('#paragraphs li')];"
            "return [items.findIndex((item) => item.ariaCurrent === 'step'),"
            " Number(document.getElementById('app').dataset.requests), document.getElementById('status').textContent]"
        )
        if current not in seen and current[0] >= 0:
            seen.append(current)
        time.sleep(0.03)
    assert page.data()["state"] == "done", page.text("error")
    assert [index for i, (index, _, _) in enumerate(seen) if not i or seen[i - 1][0] != index] == [0, 1, 2]
    assert all(requests <= index + 2 for index, requests, _ in seen)
    assert {requests for index, requests, _ in seen if index == 0} >= {2}
    assert {status for index, _, status in seen if index == 1} >= {"Speaking paragraph 2 of 3."}
    seed = int(page.text("used-seed"))
    pause = bytes(2 * PAUSE)
    expected = pause.join(pcm16(alone(server, text, voice="slt", seed=seed)) for text in texts)
    assert samples_of(page.downloaded()) == expected
    fields = [arguments[0] for _, arguments in calls]
    assert [given["input"] for given in fields] == texts
    assert [given.get("seed") for given in fields] == [None, seed, seed]


def test_splitting(page):
    """At blank lines; a paragraph that is too long, after a sentence, else after a word, else anywhere."""
    split = "const {split} = await import('/reading.js'); return split(given[0], given[1])"
    assert page.run_async(split, "One.\nStill one.\n\n\n  \nTwo.\r\n\r\nThree.", 100) == [
        "One.\nStill one.",
        "Two.",
        "Three.",
    ]
    assert page.run_async(split, "Aa bb. Cc dd! Ee ff gg", 14) == ["Aa bb. Cc dd!", "Ee ff gg"]
    assert page.run_async(split, "aaa bbb ccc", 8) == ["aaa bbb", "ccc"]
    assert page.run_async(split, "你好。再见。你好", 6) == ["你好。再见。", "你好"]
    assert page.run_async(split, "😀" * 5, 2) == ["😀😀", "😀😀", "😀"]
    assert page.run_async(split, " \n\n ", 8) == []
    assert [len(part) for part in page.run_async(split, "a" * 4500, 4096)] == [2000, 2000, 500]


def test_stop_frees_the_server(page, server, monkeypatch):
    with held_after(monkeypatch, 4):
        speak(page)
        page.wait_for("speaking")
        page.click("speak")
        page.wait_for("stopped")
        assert page.text("speak") == "Speak"
        server.wait_until_idle()
    assert page.text("status") == "Stopped."
    heard = page.number("heard")
    speak(page)  # and the page goes on
    page.wait_for("done")
    assert heard != page.number("heard") == page.number("samples")


# Errors


def test_errors(page, server, server_voices, clip):
    """In one line, the page's own and the server's; the page goes on."""
    page.click("speak")
    assert page.text("error") == "write a text first"
    speak(page, seed="seven")
    assert page.text("error") == "the seed must be a whole number from 0 to 9007199254740991, not seven"
    make(page, clip)
    (server_voices / "me.safetensors").unlink()
    speak(page, seed="")
    page.wait_for("failed")
    assert page.text("error").startswith("unknown voice 'me'; this server has: slt, rms")
    assert page.element("error").get_attribute("role") == "alert"
    assert not page.element("playing").is_displayed()
    assert any("400" in line for line in page.errors())
    speak(page, voice="demo|rms")
    page.wait_for("done")
    assert page.text("error") == ""


def test_an_end_before_the_time(page, server, monkeypatch):
    """If the server fails in the middle, what came is heard, and can be saved."""
    write = routes.SpeechEncoder.write
    written = 0

    async def fail(encoder, chunk):
        nonlocal written
        written += 1
        if written > 3:
            await asyncio.sleep(0.3)
            raise RuntimeError("on purpose")
        return await write(encoder, chunk)

    monkeypatch.setattr(routes.SpeechEncoder, "write", fail)
    speak(page)
    page.wait_for("failed")
    assert page.text("error") == "the speech has ended early: the server's log says why"
    assert eventually(lambda: page.number("heard") == page.number("samples") > 0)
    assert len(samples_of(page.downloaded())) == page.number("bytes")
    assert any("net::ERR" in line for line in page.errors())


def test_a_full_queue_is_waited_for(page, server, monkeypatch):
    gate = server.service.gate
    monkeypatch.setattr(gate, "places", 0)
    monkeypatch.setattr(gate, "queue_size", 0)
    speak(page)
    assert eventually(lambda: any("429" in line for line in server.log))
    monkeypatch.undo()
    page.wait_for("done")
    assert any("429" in line for line in page.errors())


def test_key(browser):
    """The page asks for it, asks again if it is wrong, and keeps it for the tab only."""
    with running(("demo",), api_key="secret") as server:
        browser.open(server.url, ready=False)
        assert eventually(lambda: browser.element("key-dialog").is_displayed())
        assert browser.text("key-title") == "This server asks for a key"
        browser.write("key", "guess")
        browser.press(ENTER)
        assert eventually(lambda: browser.text("key-title") == "This key is wrong")
        assert browser.run("return document.activeElement.id") == "key"
        browser.element("key").send_keys("secret", ENTER)
        assert eventually(lambda: "ready" in browser.data())
        speak(browser)
        browser.wait_for("done")
        assert browser.run("return [localStorage.length, document.cookie, location.href]") == [0, "", f"{server.url}/"]
        assert browser.run("return Object.values({...sessionStorage})") == ["secret"]
        browser.driver.refresh()
        assert eventually(lambda: "ready" in browser.data())
        browser.run("sessionStorage.clear()")
        browser.errors()


# Voices


def make(page, clip: Path | None, name: str = "me", **fields) -> None:
    """Make a voice of a clip, or of what was chosen before."""
    page.run("document.getElementById('new-voice').open = true")
    if clip is not None:
        page.element("clip").send_keys(str(clip))
    for field, value in {"name": name, **fields}.items():
        page.write(field, value)
    if not page.element("consent").is_selected():
        page.click("consent")
    page.click("save")
    assert eventually(lambda: page.text("make-status").startswith("The voice me was saved.")), page.text("make-error")


def listed(page) -> list[str]:
    return page.run("return [...document.querySelectorAll('#voices li span')].map((item) => item.textContent)")


def test_a_voice_of_a_clip(page, server, clip):
    """It is made, chosen, speaks as the library's, and is removed by keyboard."""
    make(page, clip, transcript=TRANSCRIPT)
    assert listed(page) == ["me"]
    assert not page.element("no-voices").is_displayed()
    assert page.run("return document.getElementById('voice').value") == "library|me"
    base = server.model("demo-base")
    voice = base.clone_voice(str(clip), TRANSCRIPT)
    speak(page, seed="3")
    assert eventually(lambda: page.number("heard") > 2400)
    page.press(ESCAPE)  # a miniature babbles on
    got = samples_of(page.downloaded())
    expected = pcm16(alone(server, TEXT, model="demo-base", voice=voice, seed=3, max_frames=len(got) // 3840))
    assert 4800 < len(got) == len(expected)
    assert got == expected
    page.element("#voices button:last-child").send_keys(ENTER)
    assert page.text("remove-title") == "Remove the voice me?"
    page.press(ESCAPE)
    assert listed(page) == ["me"]
    page.element("#voices button:last-child").send_keys(ENTER)
    page.press(SHIFT, TAB)
    page.press(ENTER)
    assert eventually(lambda: listed(page) == [])
    assert server.client.get("/v1/audio/voices").json()["uploaded_voices"] == []
    assert page.run("return document.getElementById('voice').value") == "demo|slt"


def test_no_voice_without_consent(page, server, clip):
    page.run("document.getElementById('new-voice').open = true")
    page.element("clip").send_keys(str(clip))
    page.write("name", "me")
    page.click("save")
    assert page.run("return document.querySelector('#make :invalid').id") == "consent"
    assert server.log == []
    page.run("arguments[0].noValidate = true", page.element("make"))  # the server checks it itself
    page.click("save")
    assert eventually(lambda: page.text("make-error").startswith("consent is missing"))
    assert any("400" in line for line in page.errors())
    assert listed(page) == []


def test_a_file_that_only_the_browser_reads(page, server, tmp_path):
    """It becomes a WAV file in the page."""
    path = tmp_path / "clip.opus"
    soundfile.write(path, sounds.speech(2), 24000, format="OGG", subtype="OPUS")
    make(page, path)
    assert listed(page) == ["me"]
    (tmp_path / "notes.txt").write_text("no sound")
    page.element("clip").send_keys(str(tmp_path / "notes.txt"))
    assert eventually(lambda: page.text("make-error").startswith("this file cannot be read as audio"))


def test_a_dropped_clip(page, clip):
    page.run("document.getElementById('new-voice').open = true")
    page.run(
        "const file = new File([Uint8Array.from(arguments[0])], 'mine.wav');"
        "const dataTransfer = new DataTransfer(); dataTransfer.items.add(file);"
        "const event = new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true});"
        "document.getElementById('drop').dispatchEvent(event)",
        list(clip.read_bytes()),
    )
    assert eventually(lambda: page.text("clip-name") == "mine.wav")
    assert eventually(lambda: 1.9 < (page.run("return document.getElementById('preview').duration") or 0) < 2.1)
    make(page, None)
    assert listed(page) == ["me"]


def test_a_recorded_clip(page, server_voices):
    """Chromium's test device beeps."""
    page.run("document.getElementById('new-voice').open = true")
    page.click("record")
    assert eventually(lambda: page.text("record") == "Stop recording")
    assert page.element("record").get_attribute("aria-pressed") == "true"
    assert eventually(lambda: page.text("clip-name").startswith("recording, 1 s"))
    page.click("record")
    assert eventually(lambda: page.text("clip-name") == "your recording")
    assert page.text("record") == "Record"
    make(page, None)
    assert (server_voices / "me.safetensors").exists()


# Looks, and ways to use it


def test_narrow_window(page):
    """Nothing is wider than the window."""
    page.size(360, 800)
    page.run("document.getElementById('new-voice').open = true")
    speak(page, "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz" * 2 + "\n\nTwo.")
    assert eventually(lambda: page.number("samples") > 0)
    page.press(ESCAPE)
    page.run("document.getElementById('error').textContent = 'x'.repeat(100)")
    assert page.run("return innerWidth") == 360
    assert page.run("const one = document.documentElement; return one.scrollWidth <= one.clientWidth")
    beyond = "[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > 360).length"
    assert page.run(f"return {beyond}") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(page, scheme):
    """Text of all kinds has enough contrast (WCAG AA), in light and in dark."""
    page.scheme(scheme)
    colours = page.run(
        "const probe = document.createElement('i'); document.body.append(probe);"
        "return Object.fromEntries(arguments[0].map((name) => {"
        " probe.style.color = `var(--${name})`; return [name, getComputedStyle(probe).color]; }))",
        ["paper", "card", "field", "ink", "muted", "accent", "on-accent", "soft", "bad", "bad-soft"],
    )
    light = {name: luminance(colour) for name, colour in colours.items()}
    assert (light["paper"] > 0.5) == (scheme == "light")
    pairs = [
        ("ink", "card"), ("ink", "field"), ("ink", "soft"), ("muted", "card"), ("muted", "paper"), ("accent", "card"),
        ("on-accent", "accent"), ("bad", "bad-soft"), ("bad", "card"),
    ]  # fmt: skip
    for front, back in pairs:
        lighter, darker = sorted((light[front], light[back]), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5, (front, back)
    page.scheme("")


def luminance(colour: str) -> float:
    """The relative luminance of "rgb(r, g, b)"."""
    values = np.array([float(value) for value in colour[4:-1].split(",")]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_keyboard(page):
    """All can be reached, in the order of sight, and the focus is seen; keys speak and stop."""
    page.run("document.getElementById('new-voice').open = true")
    assert page.run("return document.activeElement.id") == "text"
    order, styles = [], []
    for _ in range(20):
        name, outline = page.run(
            "const one = document.activeElement; const style = getComputedStyle(one);"
            "return [one.id || one.tagName, style.outlineStyle + style.outlineWidth]"
        )
        if name == "BODY":
            break
        order.append(name)
        styles.append(outline)
        page.press(TAB)
    assert order == [
        "text", "voice", "language", "seed", "speak",
        "SUMMARY", "record", "clip", "name", "transcript", "consent", "save",
    ]  # fmt: skip
    assert set(styles) == {"solid2px"}
    page.element("text").send_keys("It is ten.")
    page.press(CONTROL, ENTER)
    page.wait_for("speaking")
    page.press(ESCAPE)
    page.wait_for("stopped")
    page.element("seed").send_keys("4", ENTER)
    page.wait_for("done")
    assert page.text("used-seed") == "4"


def test_names_for_a_screen_reader(page, clip):
    """Whatever takes the focus has a name, and each field its own."""
    make(page, clip)
    page.run("document.getElementById('new-voice').open = true")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = {}
    for node in tree:
        focusable = any(p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", []))
        if focusable and node["role"]["value"] != "RootWebArea":
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert all(name for group in names.values() for name in group), names
    assert names["textbox"][:2] == ["Text", "Seed"]
    assert names["combobox"] == ["Voice", "Language"]
    assert {"Speak", "Use", "Remove"} & {name.split()[0] for name in names["button"]} == {"Speak", "Remove"}
    assert {"Speak in the voice me", "Remove the voice me"} < set(names["button"])
    assert page.element("status").get_attribute("role") == "status"


# Files


def test_files_are_small_and_name_no_other_host():
    files = [path for path in FILES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000
    for path in files:
        text = path.read_text()
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "").replace("//\n", ""), path
    assert "style=" not in (FILES / "index.html").read_text()
