"""Text from strangers made safe to look at: what would steer a terminal or turn a line around is shown as a symbol instead."""

import unicodedata

_NAMED = {"\n": "⏎", "\t": "⇥"}


def visible(text: str) -> str:
    """`text` with every control, format (bidi, zero width), private and surrogate character replaced by something that shows.

    >>> visible("a\\nb\\x1b[31m"), visible("abc\\u202etxt"), visible("naïve 金门大桥")
    ('a⏎b⟨001B⟩[31m', 'abc⟨202E⟩txt', 'naïve 金门大桥')
    """
    return text if text.isprintable() else "".join(_shown(letter) for letter in text)


def visible_lines(text: str) -> str:
    """As `visible`, but line ends stay line ends."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _shown(letter: str) -> str:
    category = unicodedata.category(letter)
    if letter in _NAMED:
        return _NAMED[letter]
    if category == "Zs":
        return " "
    return f"⟨{ord(letter):04X}⟩" if category[0] == "C" or category in ("Zl", "Zp") else letter
