"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless the number is 1: `1 day`, `1,200 users`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
