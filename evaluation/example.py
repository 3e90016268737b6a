"""What a task makes and a model is asked: one question on one context, with the answers."""

from typing import NamedTuple


class Example(NamedTuple):
    """One question on one context; a model reads `context + question` and goes on with the answer."""

    task: str
    """Its name, such as "needle": one of evaluation.tasks.TASKS."""
    length_tokens: int
    """Asked for: tokens of context + question, the tokenizer's special ones included, and max_new_tokens within it."""
    number: int
    """Which example of this task, length and depth, from 0."""
    depth: float | None
    """Where in the text what is asked for stands: 0 beginning ... 1 end; None where it has no meaning."""
    context: str
    """Shared by questions on the same text, which follow one another; ends with one newline: there tokenizers part."""
    question: str
    """Follows the context directly; its last line is the answer's prefix, which the model continues."""
    answers: tuple[str, ...]
    """All that a full score needs."""
    max_new_tokens: int
    """Twice what the answers take, and eight."""
    query: str = ""
    """The key or value that is asked about, as it stands in the context; "" where nothing is named."""
    hay: str = ""
    """What the text around is: "noise", "needles", "text", "text, repeated" (it was too short); "" where none is."""
