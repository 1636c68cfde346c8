"""The sentences that the demo can say: times of day and numbers."""

NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty"]


def time_of_day(hour: int, minute: int) -> str:
    """Return the time as a sentence: "It is eleven twenty-six."

    hour: 0 .. 23. minute: 0 .. 59.
    """
    hour_name = NUMBERS[(hour - 1) % 12 + 1]
    if minute == 0:
        return f"It is {hour_name} o'clock."
    if minute < 10:
        return f"It is {hour_name} zero {number(minute)}."
    return f"It is {hour_name} {number(minute)}."


def number(value: int) -> str:
    """Return a number from 0 to 59 in words."""
    if value < 20:
        return NUMBERS[value]
    tens = TENS[value // 10 - 2]
    if value % 10 == 0:
        return tens
    return f"{tens}-{NUMBERS[value % 10]}"
