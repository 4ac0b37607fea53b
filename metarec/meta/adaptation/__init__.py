"""Inner steps for all tasks of a batch at once: without fast weights, or mapped over the tasks with ``torch.func``."""

from metarec.meta.adaptation._inner_steps import Rate
from metarec.meta.adaptation._low_rank import InnerSteps
from metarec.meta.adaptation._paths import InnerLoop, MetaLoss, Path, in_parts
from metarec.meta.adaptation._vmapped import fast_weights

__all__ = ["InnerLoop", "InnerSteps", "MetaLoss", "Path", "Rate", "fast_weights", "in_parts"]
