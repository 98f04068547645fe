"""Cross-attention maps of video diffusion transformers: stores, questions, arrays.

>>> import attnkit
>>> attnkit.ingest("outputs/batch_name/attention_maps", "maps.store")  # doctest: +SKIP
>>> store = attnkit.open("maps.store")  # doctest: +SKIP
>>> store.map("prompt_000_vid001", "flower", step=9).to_numpy().shape  # doctest: +SKIP
(15, 30, 53)
"""

from ._native import __version__
from .analyzer import AttentionAnalyzer
from .errors import (
    AttnkitError,
    DamageWarning,
    DumpError,
    NotAStoreError,
    NotFoundError,
    NothingSelectedError,
    QueryError,
    StoreError,
    WriteError,
)
from .ingest import IngestReport, ingest
from .result import Result
from .store import Info, Store, open
from .writer import StoreWriter

__all__ = [
    "AttentionAnalyzer",
    "AttnkitError",
    "DamageWarning",
    "DumpError",
    "Info",
    "IngestReport",
    "NotAStoreError",
    "NotFoundError",
    "NothingSelectedError",
    "QueryError",
    "Result",
    "Store",
    "StoreError",
    "StoreWriter",
    "WriteError",
    "__version__",
    "ingest",
    "open",
]
