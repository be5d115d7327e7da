"""Names that are too long for their place in a picture."""

from collections.abc import Callable


def shortened(text: str, most: float, length: Callable[[str], float] = len) -> str:
    """The text, or as much of its beginning and its end as fits, "…" between them.

    Names of classes often differ at their end alone: more than half of what is kept is of it.

    Args:
        most: the greatest length. length: of a text: its characters, or its pixels in a font.

    Returns:
        At least the last character, if that alone is too long.

    >>> shortened("Balinese/character07", 13), shortened("Balinese", 13)
    ('Bali…racter07', 'Balinese')
    """
    if length(text) <= most:
        return text
    for kept in range(len(text) - 1, 1, -1):
        begin = 2 * kept // 5
        short = f"{text[:begin].rstrip()}…{text[begin - kept :].lstrip()}"
        if length(short) <= most:
            return short
    return f"…{text[-1:]}"
