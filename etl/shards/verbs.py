"""The verbs around packed sequences: export, pack, convert, mix, verify, trace."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.verb import add_verb, add_where, check_workers, engine_of, show
from nextlong.errors import UserError
from nextlong.shards import FORMATS

if TYPE_CHECKING:
    from etl.shards.source import Source
    from nextlong.shards import Format
    from nextlong.tokenizing import Tokenizer

_Verbs = argparse._SubParsersAction


def _add_export(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "export",
        "write packed sequences as shards that trainers read",
        "nextlong export work --format mds --out shards",
        _export,
    )
    parser.add_argument("work", type=Path, help="a work folder, or what export, pack, convert or mix made")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="of the sequences, where a run made several")
    parser.add_argument("--tokenizer", metavar="PATH", help="where it is now (default: where the run's recipe says)")
    _add_output(parser)
    add_where(parser)


def _add_pack(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "pack",
        "pack documents of any length, or chats, into sequences",
        "nextlong pack books/ --tokenizer gpt2 --length 65536 --eos --out packed",
        _pack,
    )
    _add_input(parser)
    parser.add_argument("--chat", action="store_true", help="a column of messages; the assistant's are targets")
    parser.add_argument(
        "--fitting",
        choices=("best-fit", "concat"),
        default="best-fit",
        metavar="HOW",
        help="best-fit, or concat: end to end (default: best-fit)",
    )
    parser.add_argument("--bos", nargs="?", const=True, metavar="TOKEN", help="begin documents with it")
    parser.add_argument("--eos", nargs="?", const=True, metavar="TOKEN", help="end documents with it")
    parser.add_argument("--pad", metavar="TOKEN", help="no target (default: pad, else eos, else id 0)")
    parser.add_argument(
        "--tail",
        choices=("pad", "drop"),
        default="pad",
        metavar="HOW",
        help="of concat: pad or drop the rest (default: pad)",
    )
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="of best-fit's order (default: 0)")
    _add_output(parser)
    add_where(parser)


def _add_convert(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "convert",
        "one row from elsewhere, one sequence: longer ones are truncated",
        "nextlong convert prolong-64k --tokenizer llama --length 65536 --out packed",
        _convert,
    )
    _add_input(parser)
    _add_output(parser)
    add_where(parser)


def _add_mix(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "mix",
        "several packed folders as one, in exact proportions",
        "nextlong mix long short --proportions 33.33 66.67 --out mixture",
        _mix,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="made by export, pack, convert or mix")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--proportions", nargs="+", metavar="N", help="of sequences, one a folder: 33.33 66.67")
    how.add_argument("--repeats", nargs="+", metavar="N", help="passes over each folder: 1 2.5")
    parser.add_argument("--rows", type=int, metavar="N", help="wanted (default: until a folder has none left)")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="each folder, anew in each pass")
    _add_output(parser)
    add_where(parser)


def _add_verify(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "verify",
        "compare a packed folder with its checksums, and look into it",
        "nextlong verify shards",
        _verify,
    )
    parser.add_argument("folder", type=Path, help="made by export, pack, convert or mix")
    add_where(parser)


def _add_trace(verbs: "_Verbs[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "trace",
        "say from which documents a sequence, or a token of it, came",
        "nextlong trace shards 17 40321",
        _trace,
    )
    parser.add_argument("folder", type=Path, help="made by export, pack, convert or mix")
    parser.add_argument("row", type=int, help="number of the sequence, from 0")
    parser.add_argument("token", type=int, nargs="?", help="its place in the sequence, from 0")


SHARD_VERBS = (_add_export, _add_pack, _add_convert, _add_mix, _add_verify, _add_trace)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="files, globs, folders, URLs of parquet, jsonl, text, MDS"
    )
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help="tokenizer.json, its folder, or a hub id")
    parser.add_argument("--length", type=int, required=True, metavar="N", help="tokens of a sequence")
    parser.add_argument("--text", metavar="COLUMN", help="(default: text; with --chat messages)")
    parser.add_argument(
        "--ids", nargs="?", const="input_ids", metavar="COLUMN", help="token ids in place of text (default: input_ids)"
    )
    parser.add_argument("--id", metavar="COLUMN", help="of a document (default: its number)")
    parser.add_argument("--source", metavar="COLUMN", help="of a document (default: the file; of MDS domain)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, or a URL: s3://bucket/folder")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="parquet",
        metavar="FORMAT",
        help="parquet, mds, arrow, megatron (default: parquet)",
    )
    parser.add_argument("--compression", metavar="ZSTD", help="of mds: zstd, or zstd:1 to zstd:22")
    parser.add_argument(
        "--hashes", nargs="+", default=[], metavar="NAME", help="of mds, in its index: sha1, sha256 ..."
    )
    parser.add_argument(
        "--columns",
        choices=("sequences", "llm-foundry"),
        default="sequences",
        metavar="WHICH",
        help="of mds: sequences, or llm-foundry, for tokens alone",
    )
    parser.add_argument("--shard-bytes", type=int, metavar="N", help="of a file of mds (default: 2^26)")
    parser.add_argument("--shard-tokens", type=int, metavar="N", help="of others (default: 2^27; megatron: all)")


def _format(options: argparse.Namespace, vocab_size: int) -> "Format":
    """The format as the options describe it. Raises UserError for options of another format."""
    is_mds = options.format == "mds"
    for name, value, default in (
        ("compression", options.compression, None),
        ("hashes", options.hashes, []),
        ("columns", options.columns, "sequences"),
        ("shard-bytes", options.shard_bytes, None),
    ):
        if value != default and not is_mds:
            raise UserError(f"--{name} is an option of --format mds, not of {options.format}.")
    if is_mds:
        from nextlong.shards.mds import Mds

        if options.shard_tokens is not None:
            raise UserError("--shard-tokens is no option of --format mds: give --shard-bytes.")
        own = {} if options.shard_bytes is None else {"shard_bytes": options.shard_bytes}
        return Mds(compression=options.compression, hashes=tuple(options.hashes), columns=options.columns, **own)
    size: dict[str, Any] = {} if options.shard_tokens is None else {"shard_tokens": options.shard_tokens}
    if options.format == "megatron":
        from nextlong.shards.megatron import Megatron

        return Megatron(vocab_size=vocab_size, **size)
    if options.format == "arrow":
        from nextlong.shards.arrow import Arrow

        return Arrow(**size)
    from nextlong.shards.parquet import Parquet

    return Parquet(**size)


def _write(source: "Source", options: argparse.Namespace) -> int:
    from etl.shards.card import account_table
    from etl.shards.export import export

    check_workers(options.workers)
    format_ = _format(options, source.about.vocab_size)
    with engine_of(options) as engine:
        manifest = export(source, options.out, options.format, format_, engine)
    length = manifest["sequence_length_tokens"]
    show(f"{options.out}: {manifest['rows']:,} sequences of {length:,} tokens, {options.format}\n")
    show(account_table(manifest["account"]))
    look = "" if "://" in options.out else f"; look: nextlong verify {options.out}, nextlong trace {options.out} 0"
    show(f"\n{options.out}/README.md says how to read it{look}")
    return 0


def _export(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.of_folder import PackedFolder
    from etl.shards.of_work import WorkSource
    from etl.work import is_work_folder

    if is_work_folder(options.work):
        return _write(WorkSource.open(options.work, tokenizer=options.tokenizer, length_tokens=options.length), options)
    if not options.work.is_dir():
        raise UserError(f"{options.work} is no folder. Give a work folder, or what export, pack, convert or mix made.")
    if options.length is not None or options.tokenizer is not None:
        raise UserError(f"--length and --tokenizer are options for a work folder; {options.work} states its own.")
    folder = PackedFolder.open(options.work)
    folder.refuse_tokens_only()
    return _write(folder, options)


def _pack(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.laid_out import PackSettings
    from nextlong.special_tokens import pad_id, special_id

    tokenizer = _tokenizer(options)
    bos, eos = (special_id(tokenizer, kind, getattr(options, kind)) for kind in ("bos", "eos"))
    if options.chat and (bos is not None or eos is not None):
        raise UserError("--bos and --eos do not go with --chat: the chat template writes them.")
    if options.tail != "pad" and options.fitting != "concat":
        raise UserError("--tail drop is an option of --fitting concat: best-fit has no last sequence.")
    if options.chat and options.fitting != "best-fit":
        raise UserError(
            f"--fitting {options.fitting} would cut chats: with --chat it is best-fit, which keeps them whole."
        )
    settings = PackSettings(
        length_tokens=options.length,
        fitting=options.fitting,
        bos=bos,
        eos=eos,
        pad=pad_id(tokenizer, options.pad),
        tail=options.tail,
        seed=options.seed,
    )
    return _write_documents(options, settings, tokenizer)


def _convert(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.laid_out import PackSettings

    options.chat = False
    return _write_documents(
        options, PackSettings(length_tokens=options.length, fitting="truncate"), _tokenizer(options)
    )


def _write_documents(options: argparse.Namespace, settings: Any, tokenizer: "Tokenizer") -> int:
    from etl.inputs import ChatInput, Input
    from etl.shards.of_documents import PackSource
    from etl.shards.tokens import Documents, kind_of

    if options.chat and options.ids:
        raise UserError("--ids and --chat do not go together: chats are tokenized here.")
    kind = kind_of(options.input, is_chat=options.chat, has_ids=options.ids is not None)
    columns = {name: getattr(options, name) for name in ("text", "id", "source") if getattr(options, name) is not None}
    documents = Documents(
        kind=kind,
        input=(ChatInput if kind == "chat" else Input)(path=options.input, **columns),
        ids="input_ids" if options.ids is None else options.ids,
        template_sha256=_template(options.tokenizer) if kind == "chat" else None,
        has_whole_rows=options.verb == "convert",
    )
    return _write(PackSource.of(documents, settings, tokenizer, options.verb), options)


def _template(tokenizer: str) -> str:
    from nextlong.chats import ChatTemplate

    return ChatTemplate.load(tokenizer).fingerprint


def _tokenizer(options: argparse.Namespace) -> "Tokenizer":
    from nextlong.tokenizing import Tokenizer

    return Tokenizer.load(options.tokenizer)


def _mix(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.of_mixture import Mixture

    mixture = Mixture.of(
        options.folders,
        proportions=options.proportions,
        repeats=options.repeats,
        num_rows=options.rows,
        seed=options.shuffle,
    )
    return _write(mixture, options)


def _verify(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.verify import verify

    check_workers(options.workers)
    with engine_of(options) as engine:
        verdict = verify(options.folder, engine)
    for each in verdict.faults:
        show(f"WRONG  {each}")
    for each in verdict.facts:
        show(f"       {each}")
    show(f"{options.folder}: {'as it was written' if not verdict.faults else f'{len(verdict.faults)} faults'}")
    return 1 if verdict.faults else 0


def _trace(options: argparse.Namespace, _: list[str]) -> int:
    from etl.shards.trace import trace

    show(trace(options.folder, options.row, options.token))
    return 0
