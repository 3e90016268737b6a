"""A training recipe's file and the command line's fields in, the Training that they mean out."""

from pathlib import Path

from nextlong.recipes import Recipes
from training.config import Training

RECIPES = Recipes(
    kind=Training,
    folder=Path(__file__).with_name("recipes"),
    command="nextlong train",
    start="'nextlong train tiny' is one to start from",
    has_bases=True,
)
"""How recipes of trainings are found and read."""
FILE = "recipe.resolved.yaml"
"""In a run folder: the recipe with its defaults."""
