"""What a dry run counts is what torch counts: parameters to the last one, saved activations tensor by tensor."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nextlong.errors import UserError
from tests.training.made import SIZES
from training.config import Training
from training.estimate import GIB, LOSS_BLOCK_TOKENS, activation_bytes, estimate
from training.page import page
from training.recipe import RECIPES
from training.shape import KNOWN, Shape

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
CHANGES: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1},
    {"head_dim": 24},
    {"attention_bias": True, "mlp_bias": True},
]


def _config(kind: str, changed: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **SIZES | changed)
    if getattr(config, "sliding_window", None):
        config.sliding_window = None
    return config


def _shape(kind: str, changed: dict[str, Any]) -> Shape:
    """By what transformers writes as config.json."""
    return Shape.of(json.loads(_config(kind, changed).to_json_string(use_diff=False)))


def _recipe(name: str, *fields: str) -> Training:
    return RECIPES.load(name, ["--output=o", "--data.folders=[nowhere]", *fields])


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_parameters_are_those_of_torch(kind: str, changed: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(_config(kind, changed))
    shape = _shape(kind, changed)
    assert shape.num_parameters == sum(each.numel() for each in lm.parameters())
    assert shape.num_layer_parameters == sum(each.numel() for each in lm.model.layers[0].parameters())
    looked_up = 0 if changed.get("tie_word_embeddings") else lm.model.embed_tokens.weight.numel()
    assert shape.num_matrix_parameters == shape.num_parameters - looked_up


@pytest.mark.parametrize("kind", KNOWN)
def test_sizes_that_a_config_leaves_out_are_those_of_transformers(kind: str) -> None:
    from transformers import AutoConfig

    stated = {"model_type": kind} | {name: SIZES[name] for name in ("vocab_size", "intermediate_size")}
    stated |= {"num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 1}
    theirs = AutoConfig.for_model(**stated)
    ours = Shape.of(stated)
    width = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (ours.num_key_value_heads, ours.head_dim) == (theirs.num_key_value_heads, width)
    assert ours.is_tied == bool(theirs.tie_word_embeddings)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("changed", [{}, {"num_key_value_heads": 4}, {"head_dim": 24}], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_layer_saves_for_its_backward_pass_what_is_counted(kind: str, changed: dict[str, Any], dtype: str) -> None:
    """On a CPU, in whose attention heads are grouped as on a GPU; all tensors that are no parameters are summed."""
    import torch
    from transformers import AutoModelForCausalLM

    from training.attention import NAME, register

    register()
    lm = AutoModelForCausalLM.from_config(_config(kind, changed), attn_implementation=NAME, dtype=getattr(torch, dtype))
    num_tokens, shape = 64, _shape(kind, changed)
    hidden = torch.randn(1, num_tokens, shape.hidden_size, dtype=lm.dtype, requires_grad=True)
    places = torch.arange(num_tokens)[None]
    rotary = lm.model.rotary_emb(hidden, places)
    not_counted = {each.untyped_storage().data_ptr() for each in (*lm.parameters(), *rotary)}
    saved: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        lm.model.layers[0](
            hidden,
            position_ids=places,
            position_embeddings=rotary,
            cu_seqlens=torch.tensor([0, num_tokens], dtype=torch.int32),
            max_seqlen=num_tokens,
        )
    found = sum(each.untyped_storage().nbytes() for place, each in saved.items() if place not in not_counted)
    counted = activation_bytes(shape, hidden.element_size()) * num_tokens
    assert found == pytest.approx(counted, rel=0.01 if dtype == "bfloat16" else 0.12)


def test_llama_3_8b_has_the_parameters_that_it_has() -> None:
    assert Shape.of(LLAMA_8B).num_parameters == 8_030_261_248


def test_weights_gradients_and_optimizer_state_take_sixteen_bytes_a_parameter_and_shard() -> None:
    shape = Shape.of(LLAMA_8B)
    found = estimate(_recipe("llama3-8b-64k"), shape, ranks=8, length_tokens=65536)
    assert found.memory.held == 16 * -(-shape.num_parameters // 8)
    replicated = estimate(_recipe("llama3-8b-64k", "--parallel.dp_replicate=4"), shape, ranks=8, length_tokens=65536)
    assert replicated.memory.held == 4 * found.memory.held


def test_the_moment_of_attention_at_512k_is_what_was_found() -> None:
    """17 GB a layer for dQ in float32, and dK and dV of every query head (of 32 heads of 128)."""
    shape, recipe = Shape.of(LLAMA_8B), _recipe("llama3-8b-512k", "--parallel.sp=1")
    whole = estimate(recipe, shape, ranks=1, length_tokens=524288).memory
    heads = 524288 * 32 * 128
    rest = 524288 * (2 * ((4 + 4) * 4096 + 4) + 2 * 128 * (3 * 32 + 2 * 8) + 4 * 32)  # activations but for the MLP
    rest += 524288 * (2 * 32 * 128 + 4 * 32 + 4 * 8 * 128 + 4 * 4096) + 2 * 128256 * 4096  # gradients
    assert whole.attention - rest == heads * (4 + 2 + 2)
    assert heads * 8 == pytest.approx(17.2e9, rel=0.01)
    alike = dataclasses.replace(shape, num_key_value_heads=32)
    assert estimate(recipe, alike, ranks=1, length_tokens=524288).memory.attention < whole.attention + heads * 8


def test_a_sequence_shared_by_eight_ranks_takes_an_eighth_of_the_activations() -> None:
    shape = Shape.of(LLAMA_8B)
    one = estimate(_recipe("llama3-8b-512k", "--parallel.sp=1"), shape, ranks=8, length_tokens=524288)
    eight = estimate(_recipe("llama3-8b-512k"), shape, ranks=8, length_tokens=524288)
    assert eight.memory.inputs * 8 == one.memory.inputs
    assert eight.memory.held == one.memory.held
    assert (one.exchanged_bytes, eight.micro_steps) == (0, 8 * one.micro_steps)
    assert eight.flops == one.flops


def test_without_checkpointing_all_layers_are_kept() -> None:
    shape = Shape.of(LLAMA_8B)
    found = estimate(_recipe("llama3-8b-64k"), shape, ranks=64, length_tokens=65536)
    assert found.memory_otherwise.inputs > 32 * activation_bytes(shape, 2) * 65536
    other = estimate(_recipe("llama3-8b-64k", "--model.checkpointing=false"), shape, ranks=64, length_tokens=65536)
    assert (other.memory, other.memory_otherwise) == (found.memory_otherwise, found.memory)


def test_flops_have_the_true_cost_of_attention() -> None:
    shape = Shape.of(LLAMA_8B)
    found = estimate(_recipe("llama3-8b-64k"), shape, ranks=64, length_tokens=65536)
    tokens = 4194304
    assert found.flops == pytest.approx(6 * shape.num_matrix_parameters * tokens + 6 * 32 * 4096 * 64 * 65536.0**2)
    assert found.flops_least < 6.001 * shape.num_matrix_parameters * tokens
    assert found.seconds(0.5) == pytest.approx(2 * found.seconds(1.0))


def test_the_block_of_logits_is_that_of_the_loss() -> None:
    from training.loss import BLOCK_TOKENS

    assert LOSS_BLOCK_TOKENS == BLOCK_TOKENS


def test_the_page_says_whether_it_fits(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    text = page(_recipe("llama3-8b-64k", f"--model.path={tmp_path}"), ranks=64)
    assert "8,030,261,248 parameters" in text
    assert [line.split()[:2] for line in text.splitlines() if " GB  " in line] == [["80", "GB"], ["141", "GB"]]
    (card,) = [line for line in text.splitlines() if line.startswith("  80 GB")]
    assert card.split(maxsplit=2)[2].split("  ")[0] == "fits"
    assert card.endswith("does not fit")  # without checkpointing
    assert max(map(len, text.splitlines())) <= 120
    one = page(_recipe("llama3-8b-64k", f"--model.path={tmp_path}"), ranks=1)
    assert "fits" not in one.replace("does not fit", "")


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (["--parallel.sp=8"], {"ranks": 12}, r"parallel.sp \* parallel.dp_replicate is 8, .*ranks, 12"),
        (["--parallel.sp=3"], {"ranks": 3}, "32 attention heads, which parallel.sp = 3"),
        (["--batch.global_tokens=100000"], {"ranks": 1}, "batch.global_tokens is 100,000, .*65,536. Take e.g. 131,072"),
        ([], {"ranks": 48}, "64 rows, which 48 data-parallel ranks"),
        (
            ["--batch.sequence_tokens=null"],
            {},
            "the sequence length is not known: .* nowhere here. Say --length TOKENS",
        ),
        ([], {"mfu": 40.0}, "--mfu is 40, but it must be above 0, and at most 1"),
        (
            ["--model.path=nowhere"],
            {},
            "model.path nowhere has no config.json: give a folder of transformers, or a hub id",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    fields: list[str], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    with pytest.raises(UserError, match=message):
        page(_recipe("llama3-8b-64k", f"--model.path={tmp_path}", *fields), **options)


def test_memory_is_plausible_for_the_published_recipes() -> None:
    """They ran on GPUs of 80 GB."""
    shape = Shape.of(LLAMA_8B)
    for name, ranks, length in (("llama3-8b-64k", 64, 65536), ("llama3-8b-512k", 128, 524288)):
        assert 20 < estimate(_recipe(name), shape, ranks=ranks, length_tokens=length).memory.total / GIB < 79.6


def test_a_dry_run_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    code = f"""import sys
from etl.cli import main
assert main(['train', 'llama3-8b-64k', '--ranks', '8', '--dry-run', '--model.path', {str(tmp_path)!r}]) == 0
print(sorted({{'torch', 'transformers', 'numpy', 'dask', 'pyarrow'}} & set(sys.modules)))"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
