"""A plan of seconds."""

import dataclasses

from experiments.plan import TOY

MICRO = dataclasses.replace(
    TOY,
    scale="micro",
    methods=("standard", "nextlong"),
    seeds=(0,),
    vocabulary=512,
    document_chars=400,
    granularity_chars=120,
    held_out=4,
    hidden_size=32,
    num_layers=1,
    short_tokens=64,
    long_tokens=640,
    batch_tokens=1_280,
    micro_tokens=1_280,
    short_stage_tokens=3_840,
    long_stage_tokens=3_840,
    lengths=(640,),
    depths=(0.5,),
    number=1,
    distances=(64, 400),
    num_spans=2,
)
