"""The loss made in blocks is plain cross-entropy, and takes a fraction of its memory."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.boundaries import IGNORED
from training.loss import linear_cross_entropy


def _inputs(dtype: torch.dtype, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(101, 24, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(203, 24, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, 203, (101,), generator=generator)
    targets[torch.rand(101, generator=generator) < 0.3] = IGNORED
    return hidden, weight, targets, torch.rand(101, generator=generator)


def _plain(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    losses = functional.cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=IGNORED)
    return losses if weights is None else losses * weights


@pytest.mark.parametrize("block", [1, 7, 101, 1024])
@pytest.mark.parametrize("has_weights", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_it_is_plain_cross_entropy(dtype: torch.dtype, bound: float, has_weights: bool, block: int) -> None:
    hidden, weight, targets, weights = _inputs(dtype)
    given = weights if has_weights else None
    total, losses = linear_cross_entropy(hidden, weight, targets, given, block=block)
    found = torch.autograd.grad(3 * total, (hidden, weight))
    expected = _plain(hidden, weight, targets, None if given is None else given.to(dtype))
    grads = torch.autograd.grad(3 * expected.sum(), (hidden, weight))
    assert losses.dtype == total.dtype == dtype
    assert not losses.requires_grad
    assert torch.allclose(losses, expected, rtol=bound, atol=10 * bound)
    assert abs(total - expected.sum()) < bound * expected.sum()
    for one, other in zip(found, grads, strict=True):
        assert (one - other).norm() < 2 * bound * other.norm()
    assert (losses[targets == IGNORED] == 0).all()


def test_its_gradients_are_its_derivatives() -> None:
    hidden, weight, targets, weights = _inputs(torch.float64)
    step = 1e-6
    for place, varied in enumerate((hidden, weight)):
        total, _ = linear_cross_entropy(hidden, weight, targets, weights, block=40)
        (found,) = torch.autograd.grad(total, (varied,))
        direction = torch.randn(varied.shape, generator=torch.Generator().manual_seed(place), dtype=varied.dtype)
        with torch.no_grad():
            sides = []
            for sign in (step, -step):
                moved = [hidden, weight]
                moved[place] = varied + sign * direction
                sides.append(linear_cross_entropy(*moved, targets, weights, block=40)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        assert torch.isclose((found * direction).sum(), slope, rtol=1e-7)


def test_it_goes_backward_once() -> None:
    hidden, weight, targets, _ = _inputs(torch.float32)
    total, _ = linear_cross_entropy(hidden, weight, targets)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it goes backward once"):
        total.backward()


def test_of_bfloat16_it_is_that_of_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(512, 64, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(4099, 64, generator=generator).bfloat16().requires_grad_()
    targets = torch.randint(0, 4099, (512,), generator=generator)
    total, losses = linear_cross_entropy(hidden, weight, targets, block=100)
    wide = hidden.detach().float().requires_grad_(), weight.detach().float().requires_grad_()
    expected = _plain(*wide, targets, None)
    assert total.dtype == torch.float32
    assert abs(total - expected.sum()) < 1e-6 * expected.sum()
    assert torch.allclose(losses, expected, rtol=1e-5)
    rounded = _plain(hidden, weight, targets, None).float().sum()
    assert abs(rounded - expected.sum()) > 1e-5 * expected.sum()  # what the plain one would be off by
    for one, other in zip(
        torch.autograd.grad(total, (hidden, weight)), torch.autograd.grad(expected.sum(), wide), strict=True
    ):
        assert one.dtype == torch.bfloat16
        assert (one.float() - other).norm() < 5e-3 * other.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_target_at_all_is_nothing(dtype: torch.dtype) -> None:
    hidden, weight, targets, weights = _inputs(dtype)
    for given in (None, weights):
        total, losses = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED), given)
        assert total == 0
        assert (losses == 0).all()
        for each in torch.autograd.grad(total, (hidden, weight)):
            assert (each == 0).all()


def test_large_logits_do_not_overflow() -> None:
    hidden, weight, targets, _ = _inputs(torch.float32)
    total, _ = linear_cross_entropy(hidden * 1e4, weight, targets)
    assert torch.isclose(total, _plain(hidden * 1e4, weight, targets, None).sum(), rtol=1e-5)


def test_its_memory_is_a_fraction_of_the_plain_one() -> None:
    check_peaks(4096, 128)


def check_peaks(num_tokens: int, hidden_size: int) -> None:
    """The peak of what is allocated is below a fifth of the plain one's, with the same loss, 32,768 entries."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_tokens, hidden_size, generator=generator).requires_grad_()
    weight = torch.randn(32_768, hidden_size, generator=generator).requires_grad_()
    targets = torch.randint(0, 32_768, (num_tokens,), generator=generator)
    ours = _peak_mib(lambda: linear_cross_entropy(hidden, weight, targets)[0])
    plain = _peak_mib(lambda: functional.cross_entropy(hidden @ weight.T, targets, reduction="sum"))
    assert abs(ours[1] - plain[1]) < 1e-5 * plain[1]
    assert plain[0] >= 2 * 4 * num_tokens * 32_768 >> 20  # the logits and their gradient at least
    assert ours[0] < plain[0] / 5, (ours, plain)


def _peak_mib(loss: Callable[[], torch.Tensor]) -> tuple[int, float]:
    """What a loss and its backward pass hold at once, as PyTorch allocates it, and the loss."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        found = loss()
        found.backward()
    events = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    held = np.cumsum([each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())])
    return int(held.max()) >> 20, float(found.detach())
