"""The module that the attention maps' documentation imports from:
`from attention_analyzer import AttentionAnalyzer`."""

from attnkit import AttentionAnalyzer

__all__ = ["AttentionAnalyzer"]
