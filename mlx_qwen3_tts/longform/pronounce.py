"""Spoken forms of words: a list that the user keeps, and its use on a text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pronunciation:
    """A word and how it is spoken. any_case: None takes BookOptions.any_case."""

    word: str
    spoken: str
    any_case: bool | None = None
