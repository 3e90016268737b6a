"""A tokenizer in, a model folder out that is small enough to train on a CPU in a minute; it has no weights yet.

python -m training.tiny_model demo/tokenizer/tokenizer.json tiny --positions 2048
"""

import argparse
import json
import shutil
from pathlib import Path

from nextlong.special_tokens import named_token
from nextlong.tokenizing import Tokenizer


def write_tiny_model(
    folder: Path, tokenizer: Path, *, positions: int, hidden_size: int = 128, num_layers: int = 4
) -> Path:
    """Write config.json of a small Llama, and a copy of tokenizer.json, for model.from_scratch; returns the folder.

    positions: tokens of the longest document. hidden_size: a multiple of 32, the width of an attention head. The end of
    text is the token that the files beside tokenizer.json name, else the only special one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = Tokenizer(tokenizer).special_tokens
    eos = named_token(tokenizer.parent, "eos") or (next(iter(special)) if len(special) == 1 else None)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": Tokenizer(tokenizer).vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": hidden_size // 32,
        "num_key_value_heads": hidden_size // 64 or 1,
        "max_position_embeddings": positions,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "eos_token_id": special.get(eos or ""),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=1))
    return folder


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json")
    parser.add_argument("folder", type=Path, help="to write")
    parser.add_argument("--positions", type=int, required=True, help="tokens of the longest document")
    options = parser.parse_args()
    write_tiny_model(options.folder, options.tokenizer, positions=options.positions)


if __name__ == "__main__":
    main()
