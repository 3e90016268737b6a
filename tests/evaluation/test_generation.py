"""Answers are those of transformers' own generate, whatever is shared, read in blocks, or asked for again."""

from pathlib import Path

import pytest
import torch

from evaluation import blocks
from evaluation.blocks import forget, new_cache, read
from evaluation.example import Example
from evaluation.generation import answers, num_shared
from evaluation.model import Model, load_model
from tests.evaluation.models_made import text, write_model

KINDS = {"llama": ("Llama", {}), "qwen3": ("Qwen3", {"head_dim": 16}), "window": ("Mistral", {"sliding_window": 20})}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changed = KINDS[request.param]
    return write_model(tmp_path_factory.mktemp("models") / request.param, kind, **changed)


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", 16)


def _example(context: str, question: str, number: int = 0) -> Example:
    return Example("made", 400, number, None, context, question, ("never",), 12)


MADE = [
    *(
        _example(text(12) + "\n", f"What of {word}? {word}", place)
        for place, word in enumerate(("town", "map", "rivers"))
    ),
    _example(text(9, seed=1) + "\n", "And here?"),
    *(_example(text(15, seed=2) + "\n", question) for question in ("Why?", "Why? Because")),
]


def _plain(model: Model, example: Example) -> str:
    """Of the whole prompt, in one piece."""
    ids = model.prompt_ids(example.context + example.question)[None]
    made = model.lm.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=example.max_new_tokens, do_sample=False, pad_token_id=0
    )
    return model.tokenizer.decode(made[0, ids.shape[1] :].tolist(), skip_special_tokens=True)


@pytest.mark.usefixtures("_small_blocks")
def test_answers_are_those_of_plain_generation(folder: Path) -> None:
    model = load_model(folder, device="cpu", dtype="float64")
    said = list(answers(model, MADE))
    assert [example for example, _ in said] == MADE
    assert [output for _, output in said] == [_plain(model, example) for example in MADE]
    assert len({output for _, output in said}) > 3


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
def test_blocks_give_the_logits_of_one_pass(folder: Path, dtype: str, tolerance: float) -> None:
    model = load_model(folder, device="cpu", dtype=dtype)
    ids = model.prompt_ids(text(20))
    with torch.inference_mode():
        whole = model.lm(ids[None], use_cache=False).logits[0, -1]
    cache = new_cache()
    assert (read(model, ids, cache) - whole).abs().max() < tolerance * whole.abs().max()
    forget(cache, 40)
    assert (read(model, ids[40:], cache) - whole).abs().max() < tolerance * whole.abs().max()


@pytest.mark.usefixtures("_small_blocks")
def test_an_answer_does_not_depend_on_which_others_are_wanted(folder: Path) -> None:
    """To the last bit: logits of the first token of every answer."""
    model = load_model(folder, device="cpu")
    all_, some = _first_logits(model, MADE), _first_logits(model, [MADE[1], MADE[5]])
    assert torch.equal(all_[1], some[0])
    assert torch.equal(all_[5], some[1])


def _first_logits(model: Model, wanted: list[Example]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    kept = [example._replace(max_new_tokens=1) for example in MADE]
    names = {example._replace(max_new_tokens=1) for example in wanted}
    handle = model.lm.register_forward_hook(lambda _, __, out: found.append(out.logits[0, -1]))
    ends = [found[-1] for _ in answers(model, kept, names.__contains__)]
    handle.remove()
    return ends


def test_what_is_shared_is_read_once(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    lengths: list[int] = []
    handle = model.lm.register_forward_pre_hook(
        lambda _, __, options: lengths.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    list(answers(model, MADE[:3]))
    handle.remove()
    prompts = [model.prompt_ids(example.context + example.question) for example in MADE[:3]]
    shared = num_shared(prompts)
    assert shared >= len(MADE[0].context.encode())
    assert sum(length for length in lengths if length > 1) == shared + sum(len(prompt) - shared for prompt in prompts)


def test_an_answer_ends_at_the_end_of_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(folder, device="cpu")
    tokens: list[int] = []
    handle = model.lm.register_forward_hook(lambda _, __, out: tokens.append(int(out.logits[0, -1].argmax())))
    list(answers(model, MADE[3:4]))
    assert len(tokens) == MADE[3].max_new_tokens
    place = next(place for place in range(2, len(tokens)) if tokens[place] not in tokens[:place])
    expected = tokens[:place]
    monkeypatch.setattr(Model, "eos_ids", lambda _: frozenset({tokens[place]}))
    ((_, cut),) = answers(model, MADE[3:4])
    handle.remove()
    assert len(tokens) == MADE[3].max_new_tokens + place + 1
    assert cut == model.tokenizer.decode(expected)
