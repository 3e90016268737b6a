"""An estimate in, a page for people out."""

from collections.abc import Iterator

from etl.capacity.amounts import STAND_IN, Workload, measured_with
from etl.capacity.costs import (
    PUBLISHED_BYTES_A_CHUNK,
    PUBLISHED_CHUNKS,
    PUBLISHED_CHUNKS_A_GPU_SECOND,
    PUBLISHED_GPU_HOURS,
    PUBLISHED_SIZE,
    Estimate,
    is_searched_by_shard,
)


def page(found: Estimate, *, workers: int, gpus: int, source: str) -> str:
    """The estimate for people. source: where the rates are from."""
    workers, gpus = max(1, workers), max(1, gpus)
    lines = [*_amounts(found.workload), "", *_table(found, workers, gpus), "", *_extremes(found, workers, gpus)]
    notes = [f"{'note':<12}{note}" for note in _notes(found)]
    rates = f"{'rates':<12}{source}: {found.rates.machine}"
    return "\n".join([*lines, *_published(found), rates, *notes, "Nothing was written."])


def _amounts(amounts: Workload) -> Iterator[str]:
    corpus, long_documents = amounts.corpus, amounts.long_documents
    size = measured_with(amounts.recipe, amounts.dimensions)["granularity"]
    parts = f"{corpus.num_parts:,} part{'s' if corpus.num_parts > 1 else ''}"
    yield f"{'input':<12}{_count(corpus.num_chars)} characters, {_count(amounts.num_documents)} documents, {parts}"
    yield f"{'chunks':<12}{_count(amounts.num_chunks)} of at most {size}, {_count(amounts.num_tokens)} tokens"
    if amounts.dimensions:
        numbers = f"{amounts.dimensions:,} numbers of {amounts.recipe.embedding.dtype}"
        yield f"{'embeddings':<12}{numbers}, {amounts.vector_bytes:,} bytes a chunk"
    yield f"{'index':<12}{_index_words(amounts)}"
    each = amounts.num_candidates / max(1.0, amounts.num_queries)
    searches = f"{_count(amounts.num_queries)} searches for {each:,.0f} candidates each" if each else "no searches"
    yield f"{'lookups':<12}{searches}; {_count(amounts.num_lookups)} chunks read for the long documents"
    made = ", ".join(f"{_count(each.number)} of {each.target_length_tokens:,} tokens" for each in long_documents)
    yield f"{'output':<12}long documents: {made}"


def _index_words(amounts: Workload) -> str:
    index = amounts.index
    if index is None:
        return "none"
    if index.factory == "bm25":
        return f"bm25 of {_count(index.num_indexed)} texts"
    lists = f", {index.nprobe:,} of {index.num_lists:,} lists visited a search" if index.num_lists else ""
    size = _size(index.num_bytes)
    return f"{index.factory}{lists}; {size} in {index.num_shards:,} shard{'s' if index.num_shards > 1 else ''}"


def _table(found: Estimate, workers: int, gpus: int) -> Iterator[str]:
    on_gpu = found.seconds(on_gpu=True) > 0
    where = f"{workers:,} worker{'s' if workers > 1 else ''}" + (
        f", {gpus:,} GPU{'s' if gpus > 1 else ''}" if on_gpu else ""
    )
    yield f"{'stage':<12}{'work':<28}{'disk':>9}{'worker-hours':>14}{'GPU-hours':>11}{'tasks':>9}  time on {where}"
    for stage in found.stages:
        tasks = max((step.num_parts for step in stage.steps if not step.every_worker), default=0)
        work = f"{_count(stage.amount)} {stage.unit}" if stage.steps else "nothing to do"
        hours = [_hours(stage.seconds(on_gpu=is_gpu)) for is_gpu in (False, True)]
        time = _time(stage.shortest_seconds(workers, gpus))
        yield f"{stage.name:<12}{work:<28}{_size(stage.num_bytes):>9}{hours[0]:>14}{hours[1]:>11}{tasks:>9,}  {time}"
    hours = [_hours(found.seconds(on_gpu=is_gpu)) for is_gpu in (False, True)]
    time = _time(found.shortest_seconds(workers, gpus))
    yield f"{'all':<40}{_size(found.num_bytes):>9}{hours[0]:>14}{hours[1]:>11}{'':>9}  {time}"


def _extremes(found: Estimate, workers: int, gpus: int) -> Iterator[str]:
    slowest, of_time = found.largest(lambda stage: stage.shortest_seconds(workers, gpus))
    step = max(slowest.steps, key=lambda step: step.shortest_seconds(workers, gpus))
    widest, of_disk = found.largest(lambda stage: stage.num_bytes)
    fullest, _ = found.largest(lambda stage: stage.memory_bytes)
    on_one = ", on one worker alone" if step.num_parts == 1 and workers > 1 and not step.every_worker else ""
    costs = (
        f"{slowest.name} ({step.name}{on_one}) takes {of_time:.0%} of the time, {widest.name} {of_disk:.0%} of the disk"
    )
    yield f"{'largest':<12}{costs}"
    memory = f"a worker up to {_size(fullest.memory_bytes)} ({fullest.name}), the driver {_size(found.driver_bytes)}"
    yield f"{'memory':<12}{memory}{_mapped(found)}"


def _mapped(found: Estimate) -> str:
    index, settings = found.workload.index, found.workload.recipe.index
    if index is None:
        return ""
    if is_searched_by_shard(settings, index):
        return f"; mapped by the workers of a host: one index shard of {_size(index.num_bytes / index.num_shards)}"
    return f"; mapped by the workers of a host: the index, {_size(found.stage('index').num_bytes)}"


def _published(found: Estimate) -> Iterator[str]:
    """The published cost of embedding (LiteLong, App. E), and what it would be for as many chunks as there are here."""
    amounts = found.workload
    if not amounts.dimensions:
        return
    whole = f"{PUBLISHED_GPU_HOURS} GPU-hours ({PUBLISHED_CHUNKS_A_GPU_SECOND} chunks/s a GPU) and {PUBLISHED_SIZE}"
    yield f"{'published':<12}{PUBLISHED_CHUNKS:,} chunks of 1,024 float32 numbers: {whole} (LiteLong, App. E)"
    seconds = amounts.num_chunks / PUBLISHED_CHUNKS_A_GPU_SECOND
    theirs = f"{_hours(seconds)} GPU-hours, {_size(PUBLISHED_BYTES_A_CHUNK * amounts.num_chunks)}"
    embed = found.stage("embed")
    hours = f"{_hours(embed.seconds(on_gpu=True))} GPU-hours" if embed.seconds(on_gpu=True) else ""
    hours = hours or f"{_hours(embed.seconds(on_gpu=False))} worker-hours"
    yield f"{'':<12}for {_count(amounts.num_chunks)} chunks: {theirs}; this plan: {hours}, {_size(embed.num_bytes)}"


def _notes(found: Estimate) -> Iterator[str]:
    """What a reader should know before trusting the page."""
    amounts, recipe, index = found.workload, found.workload.recipe, found.workload.index
    if recipe.input.path == STAND_IN:
        yield "no corpus was given: docstrings of installed packages stand in for its text"
    if found.seconds(on_gpu=True) and found.rates.embedded_chunk_on_gpu is None:
        yield f"no GPU was measured: embedding at the published {PUBLISHED_CHUNKS_A_GPU_SECOND} chunks/s a GPU"
    for name, value in measured_with(recipe, amounts.dimensions).items():
        if found.rates.measured_with.get(name) != value:
            yield f"the rates were measured with {name} {found.rates.measured_with.get(name)}, this plan has {value}"
    if index is not None and index.num_lists and not recipe.index.nprobe:
        yield f"{index.nprobe} lists a search: enough for a recall of 0.95 among 16,000 chunks; a run measures its own"
    for each, wanted in zip(amounts.long_documents, recipe.synthesis.wanted, strict=True):
        if not each.number:
            yield f"of the sample no long document of {each.target_length_tokens:,} tokens can be made"
        elif each.number < (wanted or 0):
            many = f"{_count(each.number)} of the {wanted:,} long documents of {each.target_length_tokens:,} tokens"
            yield f"the corpus gives about {many} that are wanted"


def _count(number: float) -> str:
    """Four digits: 123,456 or 12.35 M."""
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.4g}{name}"
    return f"{number:,.0f}"


def _size(num_bytes: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= size:
            return f"{num_bytes / size:,.2f} {name}"
    return f"{num_bytes:,.0f} B" if num_bytes else "-"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return "-" if not seconds else f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _time(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} seconds"
