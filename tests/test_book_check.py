"""Is a segment what it should be? Its length, and a recognizer that the user names."""

import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mlx_qwen3_tts import Qwen3TTS
from mlx_qwen3_tts.errors import BookError
from mlx_qwen3_tts.generation.runaway import retry_seed
from mlx_qwen3_tts.longform import Renderer
from mlx_qwen3_tts.longform.check import Recognizer, edit_distance, error_rate, find_problem
from mlx_qwen3_tts.longform.takes import Heard
from tests.support.books import Puppet, plan_of, tone

SEGMENT = plan_of([["It is twenty past seven."]]).segments[0]  # 1.8 s are expected


@pytest.fixture(scope="module")
def clock() -> Qwen3TTS:
    return Qwen3TTS.from_pretrained("demo")


def script(folder, code: str) -> str:
    """Return a command whose program is this code; `path` is its last argument."""
    path = folder / "ear's.py"
    path.write_text(f"import sys\npath = sys.argv[-1]\n{code}\n")
    return shlex.join([sys.executable, str(path)])


@pytest.mark.parametrize(
    ("seconds", "reason", "problem"),
    [
        (1.8, "stop", ""), (0.7, "stop", ""), (6.5, "stop", ""), (0.5, "stop", "too short"),
        (7.5, "stop", "too long"), (1.8, "length", "cut off"), (1.8, "runaway", "ran on"),
    ],
)  # fmt: skip
def test_problems(seconds, reason, problem):
    found, score = find_problem(SEGMENT, tone(seconds), seconds, reason)
    assert problem in found
    assert bool(problem) == bool(found) == (score > 0)


@pytest.mark.parametrize(("seconds", "is_fine"), [(0.69, False), (0.7, True), (7.5, True), (7.51, False)])
def test_how_long_a_segment_may_be(seconds, is_fine):
    """From 0.35 to 3 times what is expected, and 1.5 s more."""
    problem, _ = find_problem(replace(SEGMENT, seconds=2.0), tone(1), seconds, "stop")
    assert (problem == "") == is_fine


def test_what_is_silent():
    for peak, problem in ((0.0019, "it is silent"), (0.0021, "")):
        assert find_problem(SEGMENT, np.full(40000, peak, np.float32), 1.8, "stop")[0] == problem


@pytest.mark.parametrize(("error", "is_fine"), [(0.3, True), (0.31, False)])
def test_how_much_may_be_heard_wrongly(tmp_path, error, is_fine):
    command = script(tmp_path, "")
    problem, score = Recognizer(command).judge(Heard(command, 0.3, "It is", error))
    assert (problem == "") == (score == 0) == is_fine


def test_wrong_words_are_worse_than_a_runaway_and_better_than_a_wrong_length(tmp_path):
    command = script(tmp_path, "")
    ran_away = find_problem(SEGMENT, tone(1.8), 1.8, "runaway")[1]
    too_short = find_problem(SEGMENT, tone(0.5), 0.5, "stop")[1]
    scores = [Recognizer(command).judge(Heard(command, 0.3, "It is", error))[1] for error in (0.31, 0.5, 4.0)]
    assert ran_away < scores[0] < scores[1] < scores[2] < too_short


def test_the_least_wrong_comes_first():
    """A runaway has all of its text; silence has nothing."""
    problems = [(1.8, "runaway"), (0.5, "stop"), (0.2, "stop"), (1.8, "length")]
    scores = [find_problem(SEGMENT, tone(seconds), seconds, reason)[1] for seconds, reason in problems]
    scores.append(find_problem(SEGMENT, np.zeros(40000), 1.8, "stop")[1])
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


def test_error_rates():
    assert error_rate("It is twenty-six past seven!", "it is TWENTY SIX past seven") == 0
    assert error_rate("It's one.", "its two") == 0.5
    assert error_rate("one two three four", "one three four") == 0.25
    assert error_rate("one", "one and two") == 2
    assert error_rate("你好，世界。", "你 好 世界") == 0
    assert error_rate("你好，世界。", "你好时界") == 0.25
    assert error_rate("Über Ärzte", "u\u0308ber a\u0308rzte") == 0
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3


def test_a_recognizer_gets_the_speech_as_wav(tmp_path):
    code = f"import shutil\nshutil.copy(path, {str(tmp_path / 'heard.wav')!r})\nprint('It is', 'twenty past\\nseven')"
    recognizer = Recognizer(script(tmp_path, code))
    heard = recognizer.hear(tone(1.0), 24000, SEGMENT)
    assert (heard.text, heard.error) == ("It is twenty past seven", 0)
    assert recognizer.judge(heard) == ("", 0.0)
    audio, rate = soundfile.read(tmp_path / "heard.wav")
    assert (len(audio), rate) == (24000, 24000)


def test_no_shell_runs(tmp_path):
    """What a shell would execute is an argument."""
    mark = tmp_path / "mark"
    command = (
        f"{script(tmp_path, 'print(sys.argv[1:-1])')} ';' touch {mark} '&&' '$(touch {mark})' '`touch {mark}`' | x"
    )
    heard = Recognizer(command).hear(tone(1.0), 24000, SEGMENT)
    assert not mark.exists()
    assert heard.text.startswith("[';', 'touch', ")
    assert heard.text.endswith("'|', 'x']")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "must be a command"), ("'", "No closing quotation"), ("/nowhere/ear", "cannot run /nowhere/ear"),
        ("false", "failed with exit code 1: no message"),
    ],
)  # fmt: skip
def test_commands_that_fail(command, message):
    with pytest.raises(BookError, match=message):
        Recognizer(command).hear(tone(1.0), 24000, SEGMENT)
    with pytest.raises(BookError, match="check_limit"):
        Recognizer("true", 1.5)


def test_a_missing_program_is_reported_before_the_work(clock, tmp_path):
    puppet = Puppet(clock, lambda request: tone(1.6))
    with pytest.raises(BookError, match="cannot run no-such-ear: no program of this name"):
        Renderer(puppet, plan_of(), tmp_path / "b.book", check="no-such-ear --fast")
    assert not (tmp_path / "b.book").exists()


def test_a_limit_without_a_recognizer_is_refused(clock, tmp_path):
    with pytest.raises(BookError, match="check_limit has no effect without check"):
        Renderer(Puppet(clock, lambda request: tone(1.6)), plan_of(), tmp_path / "b.book", check_limit=0.1)


def test_the_last_line_of_a_failure_is_reported(tmp_path):
    command = script(tmp_path, "sys.exit('no model\\nload one first\\n')")
    with pytest.raises(BookError, match=r"failed with exit code 1: load one first$"):
        Recognizer(command).hear(tone(1.0), 24000, SEGMENT)


EAR = """
import soundfile
rate = soundfile.info(path).samplerate
frames = soundfile.info(path).frames
with open({log!r}, "a") as log:
    print(path, file=log)
print("four five six seven" if frames < 1.2 * rate else "something else")
"""


def test_what_is_heard_wrongly_is_made_again(clock, tmp_path):
    """The ear hears the right words in short speech only; what it heard is kept, and not heard again."""
    log = tmp_path / "log"
    command = script(tmp_path, EAR.format(log=str(log)))
    planned = plan_of([["Four five six seven."] * 2])
    segments = tuple(replace(segment, seed=i) for i, segment in enumerate(planned.segments))
    planned = replace(planned, segments=segments)
    short = {0, retry_seed(1)}
    puppet = Puppet(clock, lambda request: tone(1.0 if request.seed in short else 1.6))

    def run(**check) -> Renderer:
        renderer = Renderer(puppet, planned, tmp_path / "b.book", **check)
        for _ in renderer.run(tmp_path / "b.wav"):
            pass
        return renderer

    def count() -> int:
        return len(log.read_text().splitlines())

    run()
    assert [request.seed for request in puppet.requests] == [0, 1]
    unchecked = (tmp_path / "b.wav").read_bytes()
    renderer = run(check=command)
    assert [request.seed for request in puppet.requests] == [0, 1, retry_seed(1)], "the first takes are heard as well"
    assert renderer.flaws == ()
    assert count() == 3
    assert (tmp_path / "b.wav").read_bytes() != unchecked
    run(check=command)
    assert count() == 3
    short.clear()
    flaws = run(check=command, check_limit=0.0).flaws
    assert flaws == ()
    assert count() == 5, "with another limit they are heard again"


def test_wrong_words_to_the_end_are_listed(clock, tmp_path):
    command = script(tmp_path, "print('nothing of that')")
    puppet = Puppet(clock, lambda request: tone(1.6))
    renderer = Renderer(puppet, plan_of([["Four five six seven."]]), tmp_path / "b.book", check=command)
    for _ in renderer.run(tmp_path / "b.wav"):
        pass
    assert [flaw.problem for flaw in renderer.flaws] == ["it was heard as 'nothing of that' (100% wrong)"]
    assert len(puppet.requests) == 3


def test_a_failing_recognizer_keeps_what_was_made(clock, tmp_path):
    puppet = Puppet(clock, lambda request: tone(1.6))
    renderer = Renderer(puppet, plan_of([["Four five six seven."]]), tmp_path / "b.book", check="false")
    with pytest.raises(BookError, match="false failed"):
        for _ in renderer.run(tmp_path / "b.wav"):
            pass
    again = Renderer(puppet, plan_of([["Four five six seven."]]), tmp_path / "b.book")
    assert again.missing == []
