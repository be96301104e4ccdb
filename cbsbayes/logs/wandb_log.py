"""The framing of a wandb transaction log: a LevelDB log of protobuf records.

A file begins with seven bytes (``:W&B``, 0xBEE1, version 0). Blocks of 32768 bytes follow,
counted from the file's first byte. A block holds chunks: CRC-32 of type and payload, length
of the payload, type (1 whole record, 2 first, 3 middle, 4 last piece), payload; fewer than
seven bytes at a block's end are padding. wandb ships no reader of its own since 0.30.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["WandbLog"]

_FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_CHUNK_HEADER = struct.Struct("<IHB")
_BLOCK = 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbLog:
    """The records of one log; iterating yields each record's bytes and mends what it can.

    A chunk whose checksum fails is left out together with the record it belongs to; where
    the length cannot be right, the rest of the block is. Every other record is read.

    Attributes
    ----------
    lost_bytes : int
        Bytes that iterating had to leave out so far.
    damaged : int
        Places where that happened.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.lost_bytes = 0
        self.damaged = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the payload of every undamaged record."""
        pieces: list[memoryview] = []
        broken = False  # the rest of a broken record is no further place
        for kind, piece in self._chunks():
            if kind in (_WHOLE, _FIRST):
                self._drop(pieces)
                pieces, broken = [piece], False
            elif kind in (_MIDDLE, _LAST) and pieces:
                pieces.append(piece)
            else:
                self._drop([*pieces, piece], same_place=broken and kind in (_MIDDLE, _LAST))
                pieces, broken = [], True
            if kind in (_WHOLE, _LAST) and pieces:
                yield b"".join(pieces)
                pieces = []
        self._drop(pieces)

    def _chunks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield type and payload of each chunk; type 0 with the bytes of a damaged one."""
        at = len(_FILE_HEADER)
        if self._data[:at] != _FILE_HEADER:
            yield 0, self._data[:at]
        while at < len(self._data):
            block_end = min(at - at % _BLOCK + _BLOCK, len(self._data))
            if at - at % _BLOCK + _BLOCK - at < _CHUNK_HEADER.size:
                at = block_end
                continue
            at, kind, payload = self._chunk(at, block_end)
            yield kind, payload

    def _chunk(self, at: int, block_end: int) -> tuple[int, int, memoryview]:
        """Return where the next chunk begins, and this one's type and payload."""
        start = at + _CHUNK_HEADER.size
        if start > block_end:
            return block_end, 0, self._data[at:block_end]
        checksum, length, kind = _CHUNK_HEADER.unpack_from(self._data, at)
        stop = start + length
        if stop > block_end or kind == 0:  # cut, nonsense, or zeros that were never written
            return block_end, 0, self._data[at:block_end]
        if zlib.crc32(self._data[start - 1 : stop]) != checksum:
            return stop, 0, self._data[at:stop]
        return stop, kind, self._data[start:stop]

    def _drop(self, pieces: list[memoryview], same_place: bool = False) -> None:
        lost = sum(len(piece) for piece in pieces)
        self.lost_bytes += lost
        self.damaged += lost > 0 and not same_place
