"""The log handlers of earlier tests and of parent processes, whose streams may be closed."""

import logging
from collections.abc import Iterable

from detectron2.utils.logger import setup_logger

RUN_LOGGERS = ("ccsa", "detectron2", "fvcore")  # to which a run adds handlers


def forget_handlers(loggers: Iterable[logging.Logger]) -> None:
    """Remove the handlers of loggers, so that the next run adds its own."""
    for logger in loggers:
        logger.handlers.clear()
    setup_logger.cache_clear()
