"""The category of an error whose text is longer than what a ring takes: its words may stand past the cut.

The text is looked at in pieces, so that the app's other threads have their turn.
"""

from __future__ import annotations

from xybridd.core.category import WORDS, ErrorCategory
from xybridd.protocol.ring import CATEGORIES

_PIECE = 2**16
_LONGEST_WORD = 32


def category_of(text: str) -> int:
    """The number of the category in a ring."""
    found = len(WORDS)
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE + _LONGEST_WORD].lower()
        for row, (_category, words) in enumerate(WORDS[:found]):
            if any(word in piece for word in words):
                found = row
                break
    category = WORDS[found][0] if found < len(WORDS) else ErrorCategory.UNKNOWN
    return CATEGORIES.index(category.value) + 1
