"""Attention by the call that GPUs get, with plain mathematics in the place of their kernels: the path, not them."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nextlong.errors import UserError
from training import attention

CALLS: list[dict[str, Any]] = []


def _documents(bounds: Tensor) -> list[slice]:
    return [slice(start, end) for start, end in itertools.pairwise(bounds.tolist())]


def _chances(query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("ihd,jhd->hij", query, key) * scale
    return scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf).softmax(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float | None) -> Tensor:
    """Every document alone, as a matrix of scores."""
    key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (key, value))
    found = torch.zeros_like(query)
    for own in _documents(bounds):
        chances = _chances(query[own], key[own], scale or query.shape[2] ** -0.5)
        found[own] = torch.einsum("hij,jhd->ihd", chances, value[own])
    return found


def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """By hand: below autograd nothing records."""
    groups, scale = query.shape[1] // key.shape[1], scale or query.shape[2] ** -0.5
    wide_key, wide_value = (each.repeat_interleave(groups, 1) for each in (key, value))
    found = [torch.zeros_like(each) for each in (query, wide_key, wide_value)]
    for own in _documents(bounds):
        chances = _chances(query[own], wide_key[own], scale)
        moved = torch.einsum("ihd,jhd->hij", grad[own], wide_value[own])
        scores = chances * (moved - (moved * chances).sum(2, keepdim=True)) * scale
        found[0][own] = torch.einsum("hij,jhd->ihd", scores, wide_key[own])
        found[1][own] = torch.einsum("hij,ihd->jhd", scores, query[own])
        found[2][own] = torch.einsum("hij,ihd->jhd", chances, grad[own])
    keys, values = (each.unflatten(1, (key.shape[1], groups)).sum(2) for each in found[1:])
    return found[0], keys, values


def _forward(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *others: Any, **options: Any) -> Any:
    CALLS.append({"bounds": bounds, "others": others, **options})
    found = _attend(query, key, value, bounds, options.get("scale"))
    nothing = torch.zeros(query.shape[1], query.shape[0]), torch.zeros(2, dtype=torch.uint64)
    return found, *nothing, torch.zeros(0), torch.zeros(0)


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, bounds: Tensor, *others: Any,
    **options: Any,
) -> Any:  # fmt: skip
    CALLS.append({"bounds": bounds, "others": others, **options})
    return _gradients(grad, query, key, value, bounds, options.get("scale"))


@pytest.fixture
def kernels() -> Iterator[None]:
    """Kernels of flash attention for CPUs, as long as a test lasts."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", _forward, "CPU")
    library.impl("_flash_attention_backward", _backward, "CPU")
    CALLS.clear()
    yield
    library._destroy()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("heads", "kv_heads", "scale"), [(4, 4, None), (4, 2, 0.3), (4, 1, None)])
def test_the_call_for_gpus_is_attention_inside_documents(heads: int, kv_heads: int, scale: float | None) -> None:
    torch.manual_seed(0)
    bounds = torch.tensor([0, 2, 40, 41 + 2, 70], dtype=torch.int32)
    inputs = [torch.randn(70, each, 8, dtype=torch.float64) for each in (heads, kv_heads, kv_heads)]
    found, grads = [], []
    for attend in (attention._on_gpu, attention._by_document):
        leaves = [each.clone().requires_grad_() for each in inputs]
        out = attend(*leaves, bounds, 38, scale)
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        grads.append(torch.autograd.grad((out * weight).sum(), leaves))
        found.append(out.detach())
    assert torch.allclose(*found, atol=1e-12)
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    assert len(CALLS) == 2
    for call in CALLS:
        assert call["bounds"].dtype == torch.int32
        assert call.get("scale") == scale
        assert (call["window_size_left"], call["window_size_right"]) == (-1, 0)
    assert CALLS[0]["others"][1:5] == (38, 38, 0.0, True)  # longest query and key, no dropout, causal


@pytest.mark.parametrize("asked", [{"dropout": 0.1}, {"sliding_window": 8}, {"softcap": 30.0}, {"s_aux": 1}])
def test_what_would_be_left_out_is_refused(asked: dict[str, Any]) -> None:
    states = torch.zeros(1, 2, 4, 8)
    bounds = torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(UserError, match=f"Module asks for {next(iter(asked))}, which attention inside documents"):
        attention.packed_attention(
            torch.nn.Module(), states, states, states, None, cu_seqlens=bounds, max_seqlen=4, **asked
        )
