"""metarec: learns how to combine recommenders.

The package is imported lazily: ``import metarec`` loads nothing heavy, each subpackage loads what it needs.
See ``docs/architecture.md`` for the house as a whole.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
