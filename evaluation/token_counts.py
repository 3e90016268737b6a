"""A tokenizer of any kind in; how many tokens texts have, and whether it gives back what it was given, out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from nextlong.decontamination import words
from nextlong.errors import UserError


class TokenCounts:
    """Counts of one tokenizer, which neither truncates nor pads here, whatever its file says."""

    def __init__(self, tokenizer: FastTokenizer) -> None:
        if tokenizer.truncation or tokenizer.padding:
            tokenizer = FastTokenizer.from_str(tokenizer.to_str())  # the caller's stays as it is
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._fast = tokenizer

    def whole(self, text: str) -> int:
        """Tokens of a text as a model reads it, special ones included."""
        return len(self._fast.encode_batch_fast([text])[0])

    def alone(self, text: str) -> int:
        """Tokens of a part of a text, without special ones."""
        return len(self._fast.encode_batch_fast([text], add_special_tokens=False)[0])

    def before(self, text: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens start before each of these characters of a text: int64 [n]; special ones do not count."""
        starts = np.array([start for start, _ in self._fast.encode(text, add_special_tokens=False).offsets], np.int64)
        return np.searchsorted(np.maximum.accumulate(starts), places, side="left")

    def room_for(self, answers: Sequence[str]) -> int:
        """Tokens that a model may make to give answers: twice what they take, and eight."""
        return 2 * self.alone(" " + ", ".join(answers)) + 8

    def require_spelled(self, task: str, text: str) -> None:
        """Raise UserError where a text's words are not what its tokens decode to."""
        decoded = self._fast.decode(self._fast.encode(text, add_special_tokens=False).ids)
        wanted, found = words(text), words(decoded)
        if wanted != found:
            lost = next((word for word in wanted if word not in found), wanted[-1])
            raise UserError(
                f"task {task}: the tokenizer does not give back its texts, for one the word {lost!r} (unknown tokens, "
                f"or a decoder that loses letters). Evaluate with a tokenizer that does, or leave this task out."
            )
