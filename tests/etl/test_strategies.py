"""Every strategy through the whole chain: bytes by the seed alone, no document or chunk used too often, all counted."""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.recipe import Recipe
from etl.work import STAGES, Work
from nextlong.config import Packing
from nextlong.errors import UserError
from nextlong.near_duplicates import THRESHOLDS
from nextlong.sketching import overlaps, sketch
from tests.conftest import TARGET, make_texts
from tests.etl.test_pipeline import run, table
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
Run = tuple[Work, dict[str, Any]]

BM25 = {"mining": {"retrieval": "bm25"}}
CASES: dict[str, dict[str, Any]] = {
    "top": {},
    "random": {"synthesis": {"negatives": "random"}},
    "random_candidates": {"synthesis": {"negatives": "random_candidates"}},
    "tail": {"synthesis": {"negatives": "tail"}},
    "self_repeat": {"synthesis": {"negatives": "self_repeat"}},
    "capped": {"synthesis": {"max_uses_per_chunk": 1, "docs_per_part": 3}},
    "two lengths": {"synthesis": {"target_length_tokens": [512, 1024], "num_samples": [7, 5]}},
    "standard": {"synthesis": {"strategy": "standard"}},
    "knn": {"synthesis": {"strategy": "knn"}},
    "iclm": {"synthesis": {"strategy": "iclm"}},
    "quest": {"synthesis": {"strategy": "quest", "num_samples": None}},
    "top bm25": BM25,
    "knn bm25": BM25 | {"synthesis": {"strategy": "knn"}},
    "iclm bm25": BM25 | {"synthesis": {"strategy": "iclm"}},
}
NO_MODEL = ["self_repeat", "standard", "quest", "top bm25", "knn bm25", "iclm bm25"]
STRATEGIES = ["nextlong", "standard", "knn", "iclm", "quest"]


def recipe_of(make_recipe: MakeRecipe, name: str, sections: dict[str, Any], **synthesis: Any) -> Recipe:
    """Ten long documents in three parts, unless the sections say otherwise."""
    few = {"num_samples": 10, "docs_per_part": 4}
    return make_recipe(name, **sections | {"synthesis": few | sections.get("synthesis", {}) | synthesis})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Run]]:
    return tmp_path_factory.mktemp("strategies"), {}


@pytest.fixture
def finished(make_recipe: MakeRecipe, runs: tuple[Path, dict[str, Run]]) -> Callable[[str], Run]:
    """Each case is run once, in this process, for all tests that only read it."""
    folder, known = runs

    def of(case: str) -> Run:
        if case not in known:
            recipe = recipe_of(make_recipe, case, CASES[case])
            known[case] = run(dataclasses.replace(recipe, output=str(folder / case)))
        return known[case]

    return of


def every_file(work: Work) -> dict[str, str]:
    """sha256 of all files of all stages; what lies beside their folders names paths and times."""
    hashes = {
        str(path.relative_to(work.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(work.path.glob("*/**/*"))
        if path.is_file()
    }
    assert len(hashes) > 30
    return hashes


def long_documents(work: Work, least: int = 5) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = table(work, "interleave").to_pylist()
    assert len(documents) >= least
    return documents


def owners(work: Work) -> dict[int, int]:
    """doc_id by chunk_id."""
    chunks = table(work, "chunk")
    return dict(zip(chunks["chunk_id"].to_pylist(), chunks["doc_id"].to_pylist(), strict=True))


def members(document: dict[str, Any], doc_ids: dict[int, int]) -> list[int]:
    """The corpus' documents in a long document, in order, each once."""
    return list(dict.fromkeys(doc_ids[each["chunk_id"]] for each in document["segments"]))


def chunk_ids(document: dict[str, Any], role: str) -> list[int]:
    return [each["chunk_id"] for each in document["segments"] if each["role"] == role]


def uses(documents: Iterable[dict[str, Any]]) -> Counter[int]:
    """In how many long documents each chunk is a negative."""
    return Counter(chunk for document in documents for chunk in set(chunk_ids(document, "negative")))


def values(summary: dict[str, Any], stage: str = "interleave") -> dict[str, Any]:
    found: dict[str, Any] = summary["stages"][stage]["values"]
    return found


def dropped(summary: dict[str, Any], stage: str, unit: str) -> dict[str, int]:
    found: dict[str, int] = summary["stages"][stage]["account"][unit]["dropped"]
    return found


FEW = ("random_candidates", "capped", "iclm", "quest")


@pytest.mark.parametrize("case", [*FEW, *in_soak(*sorted(CASES.keys() - set(FEW)))])
def test_the_seed_decides_every_byte_whoever_computes(
    make_recipe: MakeRecipe, finished: Callable[[str], Run], two_workers: Engine, case: str
) -> None:
    once, _ = finished(case)
    again, _ = run(recipe_of(make_recipe, "again", CASES[case]))
    processes, _ = run(recipe_of(make_recipe, "processes", CASES[case]), two_workers)
    before = every_file(once)
    assert len(list(once["interleave"].path.glob("part-*.parquet"))) > 2
    assert ("4-index/bm25/vocab.index.json" in before) == ("bm25" in case)
    assert before == every_file(again) == every_file(processes)


@pytest.mark.parametrize("case", [*FEW, *in_soak(*sorted(CASES.keys() - set(FEW)))])
def test_another_seed_gives_other_long_documents(
    make_recipe: MakeRecipe, finished: Callable[[str], Run], case: str
) -> None:
    other, _ = run(recipe_of(make_recipe, "other", CASES[case], seed=1))
    one, others = ({tuple(each["input_ids"]) for each in long_documents(work)} for work in (finished(case)[0], other))
    assert len(others - one) > 2


def test_every_case_gives_other_long_documents_than_the_rest(finished: Callable[[str], Run]) -> None:
    found = {case: table(finished(case)[0], "interleave")["input_ids"].to_pylist() for case in CASES}
    assert len(found) > 13
    for case, tokens in found.items():
        assert [other for other in CASES if found[other] == tokens] == [case]


@pytest.mark.parametrize("negatives", ["tail", "random", *in_soak("top", "self_repeat", "random_candidates")])
def test_of_one_meta_document_the_seed_changes_random_negatives_alone(make_recipe: MakeRecipe, negatives: str) -> None:
    documents = []
    for seed in (0, 1):
        sections = {"mining": {"num_candidates": 60, "retrieval": "bm25"}}
        recipe = recipe_of(make_recipe, f"{seed}", sections, seed=seed, negatives=negatives, num_samples=36)
        work, _ = run(recipe)
        documents.append({each["doc_id"]: each["segments"] for each in long_documents(work)})
    shared = documents[0].keys() & documents[1].keys()
    assert len(shared) > 10
    num_equal = sum(documents[0][doc_id] == documents[1][doc_id] for doc_id in shared)
    assert num_equal == (0 if negatives.startswith("random") else len(shared))


@pytest.mark.parametrize("strategy", ["standard", "knn", "iclm"])
def test_no_document_stands_in_two_long_documents(make_recipe: MakeRecipe, strategy: str) -> None:
    work, summary = run(recipe_of(make_recipe, "work", {}, strategy=strategy, num_samples=None))
    documents, doc_ids = long_documents(work, least=20), owners(work)
    used = [doc_id for document in documents for doc_id in members(document, doc_ids)]
    assert len(used) > 3 * len(documents)
    assert len(set(used)) == len(used) == summary["stages"]["interleave"]["account"]["documents"]["kept"]
    placed = [chunk for document in documents for chunk in chunk_ids(document, "document")]
    assert len(set(placed)) == len(placed)


@pytest.mark.parametrize("strategy", ["standard", "knn", "iclm"])
def test_with_the_smallest_target_every_document_is_a_long_document_once(
    make_recipe: MakeRecipe, strategy: str
) -> None:
    work, _ = run(recipe_of(make_recipe, "work", {}, strategy=strategy, target_length_tokens=1, num_samples=None))
    order = [each["doc_id"] for each in long_documents(work)]
    corpus = sorted(set(owners(work).values()))
    assert len(corpus) == 116
    assert sorted(order) == corpus != order
    assert [each["sample_id"] for each in long_documents(work)] == list(range(116))


@pytest.mark.parametrize("strategy", ["standard", "iclm"])
def test_with_the_greatest_target_one_long_document_is_the_whole_corpus(make_recipe: MakeRecipe, strategy: str) -> None:
    chunked = recipe_of(make_recipe, "chunked", {})
    for stage in ("read", "chunk"):
        work, summary = run(chunked, only=stage)
    tokens = summary["stages"]["chunk"]["account"]["tokens"]["kept"]
    assert tokens > 20 * TARGET
    whole = {"strategy": strategy, "target_length_tokens": tokens, "num_samples": None}
    work, summary = run(recipe_of(make_recipe, "work", {}, **whole))
    [document], doc_ids = long_documents(work, least=1), owners(work)
    path = members(document, doc_ids)
    assert sorted(path) == sorted(set(doc_ids.values())) != path
    placed = chunk_ids(document, "document")
    assert sorted(placed) == sorted(doc_ids)
    assert all(after == one + 1 or doc_ids[one] != doc_ids[after] for one, after in pairwise(placed))
    assert len(document["input_ids"]) == tokens
    assert not any(dropped(summary, "interleave", unit) for unit in ("documents", "chunks", "tokens"))


@pytest.mark.parametrize("case", ["iclm", "capped", "two lengths", *in_soak("standard", "quest")])
def test_a_resumed_run_gives_the_same_bytes(make_recipe: MakeRecipe, case: str) -> None:
    recipe = recipe_of(make_recipe, "work", CASES[case])
    work, _ = run(recipe)
    before = every_file(work)
    folder = work["interleave"].path
    unmarked, lost, *kept = sorted(folder.glob("part-*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert times
    (folder / "manifest.json").unlink()
    (folder / f"{unmarked.stem}.ok.json").unlink()
    lost.unlink()
    unmarked.write_bytes(b"half")
    run(recipe)
    assert every_file(work) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == times


@pytest.mark.parametrize("budget", ["paper", "exact"])
def test_the_share_of_meta_chunks_lost_is_that_of_a_recount(make_recipe: MakeRecipe, budget: str) -> None:
    work, summary = run(recipe_of(make_recipe, "work", {}, budget=budget, num_samples=24))
    documents, num_chunks = long_documents(work), Counter(owners(work).values())
    whole = sum(num_chunks[document["doc_id"]] for document in documents)
    placed = sum(len(chunk_ids(document, "meta")) for document in documents)
    assert placed > 100
    assert (whole > placed) == (budget == "paper")
    assert values(summary)["meta_chunks_lost_ratio"] == pytest.approx(1 - placed / whole, abs=1e-6)


CAPPED = {"target_length_tokens": [512, 1024], "num_samples": [12, 10]}


@pytest.mark.parametrize("most", [1, 3])
def test_no_chunk_serves_in_more_long_documents_than_allowed(make_recipe: MakeRecipe, most: int) -> None:
    free, free_summary = run(recipe_of(make_recipe, "free", {}, **CAPPED))
    capped, summary = run(recipe_of(make_recipe, "capped", {}, **CAPPED, max_uses_per_chunk=most))
    few, many = (
        uses(document for document in long_documents(free) if len(document["input_ids"]) == length)
        for length in (512, 1024)
    )
    assert any(max(few[chunk], many[chunk]) <= most < few[chunk] + many[chunk] for chunk in few)
    assert max(uses(long_documents(capped)).values()) == most
    assert dropped(summary, "interleave", "candidates")["over_used"] > 0
    assert "over_used" not in dropped(free_summary, "interleave", "candidates")
    assert Counter(len(document["input_ids"]) for document in long_documents(capped)) == {512: 12, 1024: 10}


SCARCE: dict[str, Any] = {
    "mining": {"num_candidates": 9, "retrieval": "bm25"},
    "synthesis": {"target_length_tokens": [1024, 512], "num_samples": [10, 12], "max_uses_per_chunk": 1},
}
"""So few candidates that documents of both lengths fall short, more are drawn, and one more than wanted is kept."""


def test_a_cap_gives_the_same_long_documents_for_any_part_size(make_recipe: MakeRecipe) -> None:
    found = []
    for size in (2, 5, 50):
        work, summary = run(recipe_of(make_recipe, f"by {size}", SCARCE, docs_per_part=size))
        interleaved = summary["stages"]["interleave"]
        found.append((table(work, "interleave"), interleaved["account"], interleaved["values"]))
        assert dropped(summary, "interleave", "documents")["too_short"] > 1
        assert len(work["interleave"].tables()) >= 22 / size
    assert max(uses(found[0][0].to_pylist()).values()) == 1
    assert found[0][0].equals(found[1][0])
    assert found[0][0].equals(found[2][0])
    assert found[0][1:] == found[1][1:] == found[2][1:]


def test_under_a_cap_a_nearer_candidate_is_passed_over_only_where_written_documents_used_it_up(
    make_recipe: MakeRecipe,
) -> None:
    work, _ = run(recipe_of(make_recipe, "work", SCARCE))
    candidates = {row["chunk_id"]: row["ids"] for row in table(work, "mine").to_pylist()}
    texts = dict(zip(*[table(work, "chunk")[name].to_pylist() for name in ("chunk_id", "text")], strict=True))
    used: Counter[int] = Counter()
    num_passed = 0
    for document in long_documents(work):
        inside = {texts[each["chunk_id"]] for each in document["segments"]}
        for each in document["segments"]:
            if each["role"] == "meta":
                mined = candidates[each["chunk_id"]]
            else:
                passed = [chunk for chunk in mined[: each["rank"]] if texts[chunk] not in inside]
                assert all(used[chunk] == 1 for chunk in passed)
                num_passed += len(passed)
        used.update(chunk_ids(document, "negative"))
    assert num_passed > 50


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_two_lengths_every_document_serves_one_and_no_sequence_mixes_them(
    make_recipe: MakeRecipe, strategy: str
) -> None:
    lengths = {"target_length_tokens": [512, 1024], "num_samples": [9, 5], "keyword_oversampling": 1}
    recipe = recipe_of(make_recipe, "work", {}, strategy=strategy, **lengths)
    work, _ = run(recipe)
    doc_ids, documents = owners(work), long_documents(work)
    used = [
        doc_id
        for document in documents
        for doc_id in ([document["doc_id"]] if strategy == "nextlong" else members(document, doc_ids))
    ]
    assert len(set(used)) == len(used) >= 14
    assert Counter(len(document["input_ids"]) for document in documents) == {512: 9, 1024: 5}
    check_sequences(work, documents, {512: 512, 1024: 1024}, {(512, 1): 9, (1024, 1): 5})
    for packed, expected in ((1024, {(512, 2): 4, (1024, 1): 5}), (2048, {(512, 4): 2, (1024, 2): 2})):
        several = dataclasses.replace(
            recipe, output=f"{recipe.output}-{packed}", packing=Packing(sequence_length_tokens=packed)
        )
        job = pipeline.start(several, reuse=work.path)
        summary = pipeline.run(job, Engine())
        check_sequences(job.work, documents, {512: packed, 1024: packed}, expected)
        left = 14 - sum(number * count for (_, number), count in expected.items())
        assert dropped(summary, "pack", "documents").get("incomplete_sequence", 0) == left


def check_sequences(
    work: Work, documents: Sequence[dict[str, Any]], lengths: dict[int, int], expected: dict[tuple[int, int], int]
) -> None:
    """Sequences are of their documents one after the other; expected: how many by target and number of documents."""
    tokens = {document["sample_id"]: document["input_ids"] for document in documents}
    kinds: Counter[tuple[int, int]] = Counter()
    used = []
    for row in table(work, "pack").to_pylist():
        [target] = {len(tokens[sample_id]) for sample_id in row["sample_ids"]}
        number = len(row["sample_ids"])
        assert row["length"] == lengths[target] == target * number
        assert row["indices"] == [[target * place, target * (place + 1)] for place in range(number)]
        whole = [token for sample_id in row["sample_ids"] for token in tokens[sample_id]]
        assert row["input_ids"] == (None if number == 1 else whole)
        kinds[target, number] += 1
        used += row["sample_ids"]
    assert kinds == expected
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("negatives", ["top", "tail", "random_candidates"])
def test_skipped_ranks_stay_out_and_are_counted(make_recipe: MakeRecipe, negatives: str) -> None:
    skip_top = 4
    few = {"mining": {"num_candidates": 14}, "synthesis": {"negatives": negatives}}
    every, _ = run(recipe_of(make_recipe, "every", few))
    work, summary = run(recipe_of(make_recipe, "work", few, skip_top=skip_top))
    ranks, all_ranks = (
        [
            each["rank"]
            for document in long_documents(one)
            for each in document["segments"]
            if each["role"] == "negative"
        ]
        for one in (work, every)
    )
    assert len(ranks) > 100
    assert min(all_ranks) == 0
    assert min(ranks) == skip_top
    mined = table(work, "mine").to_pylist()
    num_mined = {row["chunk_id"]: len(row["ids"]) for row in mined}
    first = {row["chunk_id"]: set(row["ids"][:skip_top]) for row in mined}
    metas = [chunk for document in long_documents(work) for chunk in chunk_ids(document, "meta")]
    skipped = sum(min(skip_top, num_mined[chunk]) for chunk in metas)
    assert dropped(summary, "interleave", "candidates")["skipped_top"] == skipped > 50
    for document in long_documents(work):
        for each in document["segments"]:
            if each["role"] == "meta":
                near = first[each["chunk_id"]]
            assert each["role"] == "meta" or each["chunk_id"] not in near


@pytest.mark.parametrize("case", CASES)
def test_what_the_summary_says_of_long_documents_is_what_a_recount_gives(
    finished: Callable[[str], Run], case: str
) -> None:
    work, summary = finished(case)
    found, expected = dict(values(summary)), recount(work)
    found.pop("meta_chunks_lost_ratio", None)
    assert found.keys() == expected.keys()
    is_mined = CASES[case].get("synthesis", {}).get("strategy", "nextlong") == "nextlong" and case != "self_repeat"
    assert bool(expected["similarity_by_rank"]) == is_mined
    assert (sum(expected["reuse"].values()) > 50) == (case != "self_repeat")
    for name in ("similarity_by_rank", "reuse"):
        assert found.pop(name) == pytest.approx(expected.pop(name), abs=2e-6), name
    assert found == pytest.approx(expected, abs=2e-6)


def test_the_recounted_cases_have_many_ranks_and_uses(finished: Callable[[str], Run]) -> None:
    found = {case: values(finished(case)[1]) for case in ("top", "quest", "capped", "knn")}
    assert {"0", "1", "2-3", "4-7", "8-15"} <= found["top"]["similarity_by_rank"].keys()
    assert {"1", "2", "3-4"} <= found["top"]["reuse"].keys()
    assert "2" in found["quest"]["reuse"]
    assert found["capped"]["reuse"].keys() == found["knn"]["reuse"].keys() == {"1"}


def recount(work: Work) -> dict[str, Any]:
    """The numbers of summary.json, by one loop over all segments."""
    doc_ids = owners(work)
    scores, distances, by_rank = [], [], defaultdict(list)
    tokens = meta_tokens = 0
    there: set[int] = set()
    inserted: Counter[int] = Counter()
    for document in long_documents(work):
        last_end = None
        for each in document["segments"]:
            chunk, role, start, end, rank, score = each.values()
            there.add(chunk)
            tokens += end - start
            scores += [] if score is None else [score]
            if role == "meta":
                meta_tokens += end - start
                distances += [] if last_end is None else [start - last_end]
                last_end = end
            if role in ("negative", "document"):
                inserted[chunk] += 1
            if role == "negative":
                by_rank[bucket(rank, 0)].append(score)
    return {
        "mean_similarity": mean(scores),
        "similarity_by_rank": {name: mean(found) for name, found in by_rank.items()},
        "mean_meta_distance_tokens": mean(distances),
        "meta_ratio": meta_tokens / tokens if meta_tokens else None,
        "distinct_documents": len({doc_ids[chunk] for chunk in there}),
        "distinct_chunks": len(there),
        "uses_per_chunk": mean(list(inserted.values())),
        "distinct_negatives_ratio": len(inserted) / inserted.total() if inserted else None,
        "reuse": dict(Counter(bucket(number, 1) for number in inserted.values())),
    }


def bucket(number: int, start: int) -> str:
    """The bucket of a rank, from 0 on: 0, 1, 2-3, 4-7, ...; of a number of uses, from 1 on: 1, 2, 3-4, 5-8, ..."""
    first = last = start
    while number > last:
        first, last = last + 1, 2 * last + 1 - start
    return f"{first}" if first == last else f"{first}-{last}"


def mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


@pytest.fixture
def almost_repeated(tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    """A corpus in which a long paragraph stands in ten documents, the first 0, 4, ..., 36 of its 45 words replaced."""
    rng = np.random.default_rng(5)

    def words(number: int) -> list[str]:
        return ["".join(rng.choice([*"abcdefgh"], 5)) for _ in range(number)]

    paragraph = words(45)
    variants = [" ".join([*words(replaced), *paragraph[replaced:]]) for replaced in range(0, 40, 4)]
    texts = [text for _, text in make_texts(30)]
    texts += ["\n".join([" ".join(words(48)), variant, " ".join(words(48))]) for variant in variants]
    path = tmp_path / "almost.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    return {"path": str(path), "id": None, "source": None}, variants


@pytest.mark.parametrize("retrieval", ["embeddings", "bm25"])
def test_a_paragraph_repeated_almost_verbatim_is_dropped_by_its_overlap(
    make_recipe: MakeRecipe, almost_repeated: tuple[dict[str, Any], list[str]], retrieval: str
) -> None:
    corpus, variants = almost_repeated
    mined, num_dropped = [], []
    for overlap in (None, 0.5):
        rules = {"near_duplicate_similarity": None, "near_duplicate_overlap": overlap, "retrieval": retrieval}
        sections = {"input": corpus, "mining": rules}
        work, summary = run(
            recipe_of(make_recipe, f"{overlap}", sections, num_samples=None, target_length_tokens=2 * TARGET)
        )
        texts = table(work, "chunk")["text"].to_pylist()
        first, second, *_, last = map(texts.index, variants)
        candidates = {row["chunk_id"]: row["ids"] for row in table(work, "mine").to_pylist()}
        mined.append((second in candidates[first], first in candidates[second], last in candidates[first]))
        counts = dropped(summary, "mine", "candidates")
        num_dropped.append(counts.get("near_duplicate_by_overlap", 0))
        assert "near_duplicate" not in counts
    assert mined == [(True, True, True), (False, False, True)]
    assert num_dropped[0] == 0 < num_dropped[1] < 90


@pytest.mark.parametrize(("rule", "threshold"), [("similarity", 0.9), ("overlap", 0.5)])
def test_near_duplicates_by_threshold_are_those_of_all_mined_pairs(
    make_recipe: MakeRecipe, almost_repeated: tuple[dict[str, Any], list[str]], rule: str, threshold: float
) -> None:
    sections = {"mining": {"near_duplicate_similarity": None, "num_candidates": 30}}
    if rule == "overlap":
        sections["input"], _ = almost_repeated
    every = {"num_samples": None, "target_length_tokens": 2 * TARGET}
    free, free_summary = run(recipe_of(make_recipe, "free", sections, **every))
    sections["mining"] |= {f"near_duplicate_{rule}": threshold}
    ruled, summary = run(recipe_of(make_recipe, "ruled", sections, **every))
    assert values(free_summary, "mine")["near_duplicates"] == {}
    [(name, facts)] = values(summary, "mine")["near_duplicates"].items()
    pairs = mined_pairs(free, rule)
    assert len(pairs) > 5000
    levels = sorted({*THRESHOLDS, threshold})
    expected = {str(level): sum(value >= np.float32(level) for value, _, _ in pairs) for level in levels}
    assert len(set(expected.values())) > 3
    assert (name, facts["threshold"], facts["compared"]) == (rule, threshold, len(pairs))
    assert facts["at_or_above"] == expected
    reason = {"similarity": "near_duplicate", "overlap": "near_duplicate_by_overlap"}[rule]
    num_dropped = dropped(summary, "mine", "candidates")[reason]
    assert num_dropped == expected[str(threshold)] > 4
    assert len(mined_pairs(ruled, rule)) == len(pairs) - num_dropped
    check_examples(facts, pairs, threshold)


def mined_pairs(work: Work, rule: str) -> list[tuple[np.float32, int, int]]:
    """(similarity or overlap, meta-chunk, candidate) of all mined pairs."""
    sketches = sketch(table(work, "chunk")["text"].to_pylist()) if rule == "overlap" else None
    pairs = []
    for row in table(work, "mine").to_pylist():
        scores = np.array(row["scores"], np.float32)
        found = scores if sketches is None else overlaps(sketches[row["chunk_id"]], sketches[row["ids"]])
        pairs += [(value, row["chunk_id"], other) for value, other in zip(found, row["ids"], strict=True)]
    return pairs


def check_examples(facts: dict[str, Any], pairs: Iterable[tuple[np.float32, int, int]], threshold: float) -> None:
    """Four on either side, none nearer; which of equals is not asked."""
    known = {(query, other): round(float(value), 6) for value, query, other in pairs}
    for side, is_there in (("just_below", lambda value: value < threshold), ("just_above", lambda v: v >= threshold)):
        nearest = sorted((value for value in known.values() if is_there(value)), key=lambda v: abs(v - threshold))
        assert [value for value, _, _ in facts[side]] == nearest[:4]
        assert len({(query, other) for _, query, other in facts[side]}) == 4
        assert all(known[query, other] == value for value, query, other in facts[side])


@pytest.mark.parametrize("case", CASES)
def test_everything_read_is_kept_or_dropped_for_every_strategy(finished: Callable[[str], Run], case: str) -> None:
    work, summary = finished(case)
    accounts = {stage: summary["stages"][stage]["account"] for stage in STAGES}
    counts = [count for account in accounts.values() for unit, count in account.items() if unit != "notes"]
    assert len(counts) >= 12
    assert all(count["read"] == count["kept"] + sum(count["dropped"].values()) for count in counts)
    documents, doc_ids = long_documents(work), owners(work)
    interleaved, packed = accounts["interleave"], accounts["pack"]
    strategy = CASES[case].get("synthesis", {}).get("strategy", "nextlong")
    used = [[each["doc_id"]] if strategy == "nextlong" else members(each, doc_ids) for each in documents]
    assert interleaved["documents"]["read"] == accounts["read"]["documents"]["kept"] == table(work, "read").num_rows
    assert interleaved["documents"]["kept"] == len({doc_id for each in used for doc_id in each})
    assert interleaved["chunks"]["kept"] == sum(len(document["segments"]) for document in documents)
    assert interleaved["tokens"]["kept"] == sum(len(document["input_ids"]) for document in documents)
    assert packed["documents"]["read"] == packed["documents"]["kept"] == len(documents)
    assert packed["tokens"]["read"] == interleaved["tokens"]["kept"]
    if strategy in ("knn", "iclm") or (strategy == "nextlong" and case != "self_repeat"):
        unit = "candidates" if strategy == "nextlong" else "neighbours"
        num_mined = sum(len(ids) for ids in table(work, "mine")["ids"].to_pylist())
        assert accounts["mine"][unit]["kept"] == num_mined > 1000
    if strategy == "nextlong":
        inserted = sum(len(document["segments"]) - len(chunk_ids(document, "meta")) for document in documents)
        assert interleaved["candidates"]["kept"] == inserted > 50


@pytest.mark.parametrize("case", NO_MODEL)
def test_what_needs_no_model_runs_without_one_and_writes_no_vectors(
    make_recipe: MakeRecipe, finished: Callable[[str], Run], case: str
) -> None:
    work, _ = run(recipe_of(make_recipe, "work", CASES[case] | {"embedding": {"model": None}}))
    long_documents(work)
    assert vector_files(work) == []
    assert every_file(work) == every_file(finished(case)[0])  # a model that is given is not used either
    assert len(vector_files(finished("top")[0])) == 4
    assert len(vector_files(finished("knn")[0])) == 7


def vector_files(work: Work) -> list[str]:
    """Embeddings, vectors of documents, and FAISS files."""
    embeddings = work["embed"].path.rglob("*.npy")
    vectors = (path for pattern in ("vectors-*.npy", "*.faiss") for path in work["index"].path.rglob(pattern))
    return sorted(path.name for path in (*embeddings, *vectors))


@pytest.mark.parametrize("strategy", ["nextlong", "knn", "iclm"])
def test_embeddings_without_a_model_are_refused_before_any_work(
    make_recipe: MakeRecipe, tmp_path: Path, strategy: str
) -> None:
    recipe = recipe_of(make_recipe, "work", {"embedding": {"model": None}}, strategy=strategy)
    told = rf"embedding\.model is not set, but synthesis\.strategy={strategy} .* set mining\.retrieval to bm25"
    with pytest.raises(UserError, match=told):
        run(recipe)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("case", ["top", "iclm", "quest", *in_soak("self_repeat", "standard", "knn", "top bm25")])
def test_chunks_measured_in_tokens_serve_every_strategy_alike_on_any_workers(
    make_recipe: MakeRecipe, finished: Callable[[str], Run], two_workers: Engine, case: str
) -> None:
    sections = CASES[case] | {"chunking": {"granularity_tokens": 64}}
    alone, _ = run(recipe_of(make_recipe, "alone", sections))
    processes, _ = run(recipe_of(make_recipe, "processes", sections), two_workers)
    assert every_file(alone) == every_file(processes)
    assert 50 < max(table(alone, "chunk")["num_tokens"].to_pylist()) <= 64
    num_chunks = [table(work, "chunk").num_rows for work in (alone, finished(case)[0])]
    assert num_chunks[0] != num_chunks[1]
    for document in long_documents(alone):
        ends = [each["end"] for each in document["segments"]]
        assert [each["start"] for each in document["segments"]] == [0, *ends[:-1]]
        assert ends[-1] == len(document["input_ids"]) == TARGET
