"""Use coremltools without its noise and without leaving its global counters changed."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["fresh_builder", "quiet_coremltools"]


@contextmanager
def quiet_coremltools() -> Iterator[Any]:
    """Import coremltools and yield the module; its log and warnings stay silent inside.

    On Linux it logs that its prediction libraries are absent, and warns of the versions of
    frameworks that we do not use. Neither concerns lowering.
    """
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools

            yield coremltools
    finally:
        logger.setLevel(level)


@contextmanager
def fresh_builder() -> Iterator[Any]:
    """The MIL builder with its process-wide name counter at zero, put back afterwards.

    Otherwise the names, and so the bytes, of a program depend on what was built before.
    """
    from coremltools.converters.mil.mil import Builder

    saved = Builder.name_count
    Builder.name_count = defaultdict(int)
    try:
        yield Builder
    finally:
        Builder.name_count = saved
