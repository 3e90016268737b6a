"""The golden files are what the reference writers make today."""

from pathlib import Path

import pytest

from tests.readers.equal import assert_same_files
from tests.readers.programs import run

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize(("environment", "name"), [("streaming", "mds"), ("megatron", "megatron")])
def test_golden_files_are_made_again_byte_for_byte(environment: str, name: str, tmp_path: Path) -> None:
    run(environment, f"golden.make_{name}", tmp_path)
    assert_same_files(tmp_path, GOLDEN / name)
    assert_same_files(GOLDEN / name, tmp_path)
