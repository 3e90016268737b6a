"""A plan in; what training and measuring takes here, by a measurement of some seconds, out."""

import time

from experiments.plan import MARGIN_TASKS, Plan
from experiments.train import on_gpu

_TIMED_SECONDS = 3.0
_TOKEN_SECONDS = 0.006
"""Of an answer's token, one after the other: the overhead of a small model's layers."""
_ANSWER_TOKENS = 40


def told(plan: Plan, workers: int) -> str:
    """How long the plan takes with so many trainings at a time, the making of data apart, for people."""
    rates = {length: tokens_per_second(plan, length) for length in (plan.short_tokens, plan.long_tokens)}
    short, long = (rates[length] for length in (plan.short_tokens, plan.long_tokens))
    models = len(plan.seeds) * len(plan.methods)
    seconds = max(plan.bases, workers) * plan.short_stage_tokens / short  # with fewer bases than workers, some wait
    seconds += models * (plan.long_stage_tokens / long + measuring_seconds(plan, 3 * long))
    return (
        f"here         a training takes {short:,.0f} tokens/s of the short and {long:,.0f} of the long stage; all of "
        f"them, measured, about {seconds / workers / 60:,.0f} minutes, {workers} at a time, if each is as fast then; "
        f"before that the data, mostly embeddings, minutes"
    )


def measuring_seconds(plan: Plan, forward_rate: float) -> float:
    """Of one model. forward_rate: tokens a second that are only read."""
    questions = plan.number * len(plan.depths) * len(MARGIN_TASKS)
    answers = len(plan.lengths) * (plan.number // 2) * (3 * len(plan.depths[::2]) + 3)
    read = 2 * questions * sum(plan.lengths)
    read += 2 * len(plan.distances) * plan.num_spans * plan.long_tokens
    read += 5 * plan.held_out * plan.long_tokens
    read += answers * sum(plan.lengths) // len(plan.lengths)
    return read / forward_rate + answers * _ANSWER_TOKENS * _TOKEN_SECONDS


def tokens_per_second(plan: Plan, length_tokens: int) -> float:
    """Of training with one thread (on a GPU: with all of it), measured for some seconds on random tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    device = torch.device("cuda" if on_gpu() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=plan.vocabulary,
        hidden_size=plan.hidden_size,
        intermediate_size=3 * plan.hidden_size,
        num_hidden_layers=plan.num_layers,
        num_attention_heads=plan.hidden_size // 32,
        num_key_value_heads=plan.hidden_size // 64 or 1,
        max_position_embeddings=length_tokens,
        tie_word_embeddings=True,
    )
    lm = LlamaForCausalLM(config).to(device)
    ids = torch.randint(plan.vocabulary, (max(1, plan.micro_tokens // length_tokens), length_tokens), device=device)
    lm(input_ids=ids, labels=ids).loss.backward()  # the first one makes gradients and warms up
    started, num_tokens = time.perf_counter(), 0
    while time.perf_counter() - started < _TIMED_SECONDS:
        lm(input_ids=ids, labels=ids).loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        num_tokens += ids.numel()
    torch.set_num_threads(threads)
    return num_tokens / (time.perf_counter() - started)
