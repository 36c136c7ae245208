"""Keeps the decoders of photographs from writing on the screen."""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from contextlib import suppress
from functools import cache

from PIL import _imaging as imaging_library

_DECODERS = r"PIL\.|pillow_heif|tifffile|patchword\.image"


class _Silence:
    """Keeps decoders from writing on the screen: Pillow warns of odd metadata, which is read all the same.

    Filters of warnings belong to the process and photographs are read by several threads, so that the first to come in
    sets the filter and the last to leave takes it away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                _silence_libtiff()
                for name in ("PIL", "tifffile"):  # without a handler, Python writes on the screen what they log
                    logger = logging.getLogger(name)
                    if not logger.handlers:
                        logger.addHandler(logging.NullHandler())
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=_DECODERS)  # others' warnings are others' business
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


SILENCE = _Silence()


@cache
def _silence_libtiff() -> None:
    """Keep the library that decodes TIFFs for Pillow from writing to standard error, once and for all.

    It writes past Python whatever it finds wrong with a file. Where Pillow was built so that its library cannot be
    reached, it goes on writing.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(imaging_library.__file__)  # looks into the libraries that it was linked with, too
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
