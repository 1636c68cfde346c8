"""The sentences that the speaking demo can say: times of day and numbers."""

NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty"]


def time_of_day(hour: int, minute: int) -> str:
    """0 .. 23 and 0 .. 59 as a sentence that the demo can say: "It is eleven twenty-six." """
    spoken = NUMBERS[(hour - 1) % 12 + 1]
    if minute == 0:
        return f"It is {spoken} o'clock."
    return f"It is {spoken} {'zero ' * (minute < 10)}{number(minute)}."


def number(value: int) -> str:
    """0 .. 59 in words."""
    if value < 20:
        return NUMBERS[value]
    return TENS[value // 10 - 2] + (f"-{NUMBERS[value % 10]}" if value % 10 else "")
