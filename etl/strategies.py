"""The names by which strategies are compared, and what each changes in a recipe."""

from collections.abc import Sequence
from typing import Any

from nextlong.errors import UserError
from nextlong.spelling import did_you_mean

STRATEGIES: dict[str, dict[str, dict[str, Any]]] = {
    "nextlong": {"synthesis": {"strategy": "nextlong"}},
    "nextlong-paper": {"synthesis": {"strategy": "nextlong", "budget": "paper"}},
    "nextlong-random": {"synthesis": {"strategy": "nextlong", "negatives": "random", "skip_top": 0}},
    "nextlong-random-candidates": {"synthesis": {"strategy": "nextlong", "negatives": "random_candidates"}},
    "nextlong-tail": {"synthesis": {"strategy": "nextlong", "negatives": "tail"}},
    "nextlong-self-repeat": {"synthesis": {"strategy": "nextlong", "negatives": "self_repeat", "skip_top": 0}},
    "nextlong-skip-top": {"synthesis": {"strategy": "nextlong", "skip_top": 3}},
    "nextlong-bm25": {"synthesis": {"strategy": "nextlong"}, "mining": {"retrieval": "bm25"}},
    "standard": {"synthesis": {"strategy": "standard"}},
    "knn": {"synthesis": {"strategy": "knn"}},
    "knn-bm25": {"synthesis": {"strategy": "knn"}, "mining": {"retrieval": "bm25"}},
    "iclm": {"synthesis": {"strategy": "iclm"}},
    "iclm-bm25": {"synthesis": {"strategy": "iclm"}, "mining": {"retrieval": "bm25"}},
    "quest": {"synthesis": {"strategy": "quest"}},
}
"""What each name changes in the recipe."""
DEFAULT_STRATEGIES = ("nextlong", "standard", "knn", "iclm", "quest")
"""The methods of the paper's Table 1."""


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for a name that is no strategy, or stands twice."""
    for name in names:
        if name not in STRATEGIES:
            among = f"among {', '.join(STRATEGIES)}.{did_you_mean(name, STRATEGIES)}"
            raise UserError(f"--strategies names {name!r}, but it must be {among}")
        if names.count(name) > 1:
            raise UserError(f"--strategies names {name!r} twice.")
