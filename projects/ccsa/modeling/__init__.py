"""Meta-architectures and heads of ccsa."""

from ccsa.modeling.context_model import ContextModel

__all__ = ["ContextModel"]
