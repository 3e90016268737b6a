"""The chain gives, long document for long document, what a slow and obvious program gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from etl.lookup import embedding_store
from etl.recipe import Recipe
from tests import reference
from tests.conftest import TARGET
from tests.etl.test_pipeline import run, table
