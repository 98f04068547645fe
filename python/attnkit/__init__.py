"""Cross-attention maps of video diffusion transformers: stores, questions, arrays.

>>> import attnkit
>>> attnkit.ingest("outputs/batch_name/attention_maps", "maps.store")  # doctest: +SKIP
>>> store = attnkit.open("maps.store")  # doctest: +SKIP
>>> store.map("prompt_000_vid001", "flower", step=9).to_numpy().shape  # doctest: +SKIP
(15, 30, 53)
"""

from ._native import __version__
from .analyzer import AttentionAnalyzer
from .capturing import Capture, CapturedStep, TextOfStep, TrackedWord, capture
from .drawing import Figure, Film
from .errors import (
    AttnkitError,
    DamageWarning,
    DumpError,
    ExportError,
    NotAStoreError,
    NotFoundError,
    NothingSelectedError,
    PromptError,
    QueryError,
    StoreError,
    WriteError,
)
from .estimate import Estimate, estimate
from .ingest import ingest, watch
from .prompts import Prompt, Prompts, expand_prompts
from .reports import CompactReport, DryRun, ExportReport, GcReport, IngestReport, RollupReport, VerifyReport
from .result import Result
from .store import Info, Store, open
from .tokenizing import Tokens, tokens
from .where import Where
from .writer import StepBuffer, StoreWriter

__all__ = [
    "AttentionAnalyzer",
    "AttnkitError",
    "Capture",
    "CapturedStep",
    "CompactReport",
    "DamageWarning",
    "DryRun",
    "DumpError",
    "Estimate",
    "ExportError",
    "ExportReport",
    "Figure",
    "Film",
    "GcReport",
    "Info",
    "IngestReport",
    "NotAStoreError",
    "NotFoundError",
    "NothingSelectedError",
    "Prompt",
    "PromptError",
    "Prompts",
    "QueryError",
    "Result",
    "RollupReport",
    "StepBuffer",
    "Store",
    "StoreError",
    "StoreWriter",
    "TextOfStep",
    "Tokens",
    "TrackedWord",
    "VerifyReport",
    "Where",
    "WriteError",
    "__version__",
    "capture",
    "estimate",
    "expand_prompts",
    "ingest",
    "open",
    "tokens",
    "watch",
]
