"""Speak through a server with OpenAI's client, and begin to play before the speech is complete.

mlx-qwen3-tts serve &
python openai_client.py "Hello, how are you?" http://127.0.0.1:8880/v1 | ffplay -loglevel error -nodisp -autoexit -
"""

import sys

from openai import OpenAI


def main() -> None:
    text, url = sys.argv[1], sys.argv[2]
    client = OpenAI(base_url=url, api_key="none")  # the key of `serve --api-key`, if there is one
    print(
        "voices:",
        ", ".join(voice["id"] for voice in client.get("/audio/voices", cast_to=dict)["voices"]),
        file=sys.stderr,
    )
    speech = client.audio.speech.with_streaming_response.create(
        model="tts-1",  # any model of the server that has the voice
        voice="",  # the model's first voice
        input=text,
        response_format="mp3",
        extra_body={"seed": 7, "language": "auto"},  # fields that OpenAI does not have
    )
    with speech as response:
        for part in response.iter_bytes():
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
