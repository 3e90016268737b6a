"""What is run at each scale: sizes, lengths, tokens, seeds, methods. Nothing here depends on a result."""

import dataclasses

from etl.strategies import STRATEGIES
from nextlong.errors import UserError

BASELINE = "standard"
PAPER_METHOD = "nextlong-paper"
"""What Table 1 of the paper calls NExtLong."""
OURS = "nextlong"
"""With the exact budget; against it stand its variants with other negatives."""
PAPER_SCORES = {"standard": 52.85, "knn": 50.97, "iclm": 50.37, "quest": 55.25, PAPER_METHOD: 62.58}
"""Averages of HELMET and RULER, arXiv:2501.12766, Table 1."""
METHODS = (*PAPER_SCORES, OURS, "nextlong-random", "nextlong-self-repeat")
"""Names of etl.strategies."""
MARGIN_TASKS = ("needle", "multikey", "key_value")
"""Tasks with one answer and a depth."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One scale: short stages, and from them a long stage for each method and seed, on as many tokens."""

    scale: str
    methods: tuple[str, ...] = METHODS
    """The baseline first."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each: of the draw of long documents, and of the order of rows."""
    bases: int
    """Short stages, each of other random weights; seeds take turns in starting from them."""

    corpus_chars: int | None = None
    """Of the default corpus; None: all docstrings."""
    vocabulary: int
    """Entries of the BPE that is trained on the corpus."""
    document_chars: int
    """Longest document that long ones are made of: of a longer one a single passage is taken, the rest left out."""
    granularity_chars: int
    """Of chunks."""
    held_out: int
    """Natural long texts that are never trained on."""

    hidden_size: int
    """Of the Llama; heads are 32 wide."""
    num_layers: int
    short_tokens: int
    """Length of a row of the short stage."""
    long_tokens: int
    """Length of a row of the long stage, and of what is measured."""
    batch_tokens: int
    """Of an optimizer step, in both stages."""
    micro_tokens: int
    """Of them that are computed at once, at least a row."""
    short_stage_tokens: int
    long_stage_tokens: int
    repeats_ratio: float = 0.25
    """Share of the short stage's rows that are passages which come again after another one: they teach to copy within
    short_tokens, which natural text teaches only in more tokens than there are here."""
    short_rate: float
    """Peak learning rate."""
    long_rate: float
    short_theta: float = 10_000
    """RoPE base of the short stage."""

    lengths: tuple[int, ...]
    """Of questions; the last is long_tokens."""
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    number: int
    """Questions of each task, length and depth whose margin is measured; of those that are answered, a half."""
    distances: tuple[int, ...]
    """Tokens between a span of random tokens and its repetition."""
    num_spans: int
    """Spans of each distance."""

    def __post_init__(self) -> None:
        """Raises UserError for tokens that are no whole steps: then no two methods could have the same."""
        for name, length in (("short_stage_tokens", self.batch_tokens), ("long_stage_tokens", self.batch_tokens)):
            _require_multiple(name, getattr(self, name), length)
        if not 0 < self.repeats_ratio < 1:
            raise UserError(f"repeats_ratio is {self.repeats_ratio}, but it must be between 0 and 1.")
        for name in ("batch_tokens", "micro_tokens"):
            _require_multiple(name, getattr(self, name), self.long_tokens)
            _require_multiple(name, getattr(self, name), self.short_tokens)
        if unknown := [name for name in self.methods if name not in STRATEGIES]:
            raise UserError(f"there is no method {unknown[0]!r} among {', '.join(STRATEGIES)}.")
        if self.methods[0] != BASELINE or len(set(self.methods)) < len(self.methods):
            raise UserError(f"methods are compared with {BASELINE}, which comes first, and each stands once.")

    def base(self, seed: int) -> int:
        """The short stage that a seed's long stages start from: for all methods the same."""
        return self.seeds.index(seed) % self.bases

    @property
    def short_steps(self) -> int:
        """Optimizer steps of the short stage."""
        return self.short_stage_tokens // self.batch_tokens

    @property
    def num_repeats(self) -> int:
        """Documents that fill about the rows of repeats once."""
        return int(2 * self.repeats_ratio * self.short_stage_tokens // self.short_tokens)

    @property
    def long_steps(self) -> int:
        """Optimizer steps of the long stage: of every method the same."""
        return self.long_stage_tokens // self.batch_tokens

    @property
    def long_rows(self) -> int:
        """Long documents wanted of each method: none is trained on twice, where the corpus gives so many."""
        return self.long_stage_tokens // self.long_tokens

    @property
    def long_theta(self) -> float:
        """RoPE base of the long stage: the slowest pair of a head of 32 turns no further than in the short stage."""
        return float(round(self.short_theta * (self.long_tokens / self.short_tokens) ** (32 / 30)))

    @property
    def held_out_chars(self) -> int:
        """Of a text that surely has long_tokens tokens."""
        return 5 * self.long_tokens

    @property
    def headline(self) -> tuple[str, ...]:
        """The measures that are told first; the first of them decides (docs/experiment.md)."""
        last = self.long_tokens
        return (
            "gain of a text",
            "gain of a text in pieces",
            f"loss at {-(-last // 2)}-{last - 1}",
            f"margin of all tasks at {last}",
            f"repeated span at distance {self.distances[-1]}",
            f"score of all tasks at {last}",
        )

    @property
    def parameters(self) -> int:
        """Of the model, the table of its vocabulary included."""
        width, heads = self.hidden_size, self.hidden_size // 32
        attention = 2 * width * width + 2 * width * 32 * max(1, heads // 2)
        return self.vocabulary * width + self.num_layers * (attention + 9 * width * width + 2 * width) + width

    def told(self) -> str:
        """The plan, for people."""
        ratio = self.long_tokens // self.short_tokens
        trainings = len(self.seeds) * len(self.methods)
        return "\n".join(
            (
                f"scale        {self.scale}: Llama of {self.num_layers} layers, {self.hidden_size} wide, "
                f"{self.parameters:,} parameters, a vocabulary of {self.vocabulary:,}",
                f"short stage  {self.short_stage_tokens:,} tokens, {self.short_steps:,} steps of {self.batch_tokens:,} "
                f"in rows of {self.short_tokens:,}, {self.repeats_ratio:.0%} of them repeats, learning rate "
                f"{self.short_rate:g}; {self.bases} of them",
                f"long stage   {self.long_stage_tokens:,} tokens, {self.long_steps:,} steps of {self.batch_tokens:,} "
                f"in rows of {self.long_tokens:,} ({ratio} times), learning rate {self.long_rate:g}, for each method "
                f"and seed",
                f"methods      {', '.join(self.methods)}",
                f"seeds        {', '.join(map(str, self.seeds))}",
                f"measured     {trainings} models, at {', '.join(f'{each:,}' for each in self.lengths)} tokens and on "
                f"{self.held_out} held-out texts",
            )
        )


def _require_multiple(name: str, tokens: int, of: int) -> None:
    if tokens % of or tokens < of:
        raise UserError(f"{name} is {tokens:,}, but it must be a multiple of {of:,}: all methods train on whole steps.")


TOY = Plan(
    scale="toy",
    bases=1,
    vocabulary=2_048,
    document_chars=1_200,
    granularity_chars=300,
    held_out=24,
    hidden_size=128,
    num_layers=2,
    short_tokens=256,
    long_tokens=2_048,
    batch_tokens=4_096,
    micro_tokens=4_096,
    short_stage_tokens=6_144_000,
    long_stage_tokens=524_288,
    short_rate=4e-3,
    long_rate=1e-3,
    lengths=(640, 2_048),
    number=4,
    distances=(128, 448, 960, 1_920),
    num_spans=8,
)
"""Two cores, below an hour."""

SMALL = dataclasses.replace(
    TOY,
    scale="small",
    bases=3,
    vocabulary=4_096,
    document_chars=2_000,
    granularity_chars=512,
    held_out=48,
    hidden_size=256,
    num_layers=4,
    long_tokens=4_096,
    batch_tokens=16_384,
    micro_tokens=4_096,
    short_stage_tokens=24_576_000,
    long_stage_tokens=2_097_152,
    short_rate=2e-3,
    long_rate=5e-4,
    lengths=(640, 1_280, 2_048, 4_096),
    number=8,
    distances=(128, 448, 960, 1_920, 3_840),
    num_spans=16,
)
"""A machine of 16 cores or more, hours."""

GPU = dataclasses.replace(
    TOY,
    scale="gpu",
    bases=3,
    vocabulary=4_096,
    document_chars=4_000,
    granularity_chars=1_024,
    hidden_size=384,
    num_layers=6,
    short_tokens=512,
    long_tokens=8_192,
    batch_tokens=32_768,
    micro_tokens=32_768,
    short_stage_tokens=32_768_000,
    long_stage_tokens=2_097_152,
    short_rate=2e-3,
    long_rate=5e-4,
    lengths=(1_024, 2_048, 4_096, 8_192),
    distances=(128, 960, 1_920, 3_840, 7_680),
)
"""A card of the H200's class, minutes."""

SCALES = {plan.scale: plan for plan in (TOY, SMALL, GPU)}
