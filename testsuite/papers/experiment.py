"""One experiment."""
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    # What is repeated, in a sentence or two.
    paper: str
    run: Callable
    # Whether tests hold it, and whether it takes so long that only the full set has it.
    short: bool = False
    full: bool = False
