"""What containers tell of their length, their holes and what is behind them.

libsndfile passes over that: it believes the first stream of an Ogg file to be all of it, and its
packets to follow each other; and of an MP3 without an index it takes the length from the bits of
its first frame. Of WAV, AIFF, AU, CAF and FLAC, no decoder looks behind the end.
"""

import re
import struct
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

# Bytes behind what an MP3's index tells that are tags, not sound: of more, who knows.
MAX_TAGS = 4096
# Of an MP3: where the index is within its first frame, by MPEG version (1, else 2 and 2.5) and by
# whether there is one channel; and samples of a frame.
SIDE_INFORMATION = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
FRAME_SAMPLES = {True: 1152, False: 576}
# The first frame of an MP3 is among so many bytes behind its tags.
MAX_SEARCH = 4096

OGG_PAGE = struct.Struct("<4sBBqIIIB")
OGG_BEGINS = 2  # flag of the first page of a stream
OPUS_RATE = 48_000  # Hz, in which positions are counted
# Samples of a frame by the first five bits of a packet (RFC 6716, table 2): four sizes of SILK, two
# of both, four of CELT.
OPUS_SAMPLES = np.repeat(
    np.array((*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)), 8
)
# A jump of positions by more than packets explain; less may be a packet that two pages share.
MAX_JUMP = OPUS_RATE // 4

# What a recording of WAV or AIFF begins with; other files of that layout may go on in a second one.
RIFF = re.compile(rb"(?:RIFF|RIFX|RF64|FORM)....(?:WAVE|AIF[FC])", re.DOTALL)
LARGE_RIFF = b"RF64"  # its size is in its first chunk
BIG_ENDIAN = frozenset((b"RIFX", b"FORM"))
AU = b".snd"
CAF = b"caff\0\1\0\0desc"  # and the name of its first chunk
CAF_CHUNK = struct.Struct(">4sq")  # its name and size, which is -1 of one that goes on to the end
# A CAF file has a few; of one that seems to have more, who knows.
MAX_CHUNKS = 1000
FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # and its first block, of stream information
# Of any of these, what it takes to tell where it ends.
HEAD_BYTES = 28
# A FLAC decoder reads that far ahead at most; and as large are tags between two streams.
MAX_AHEAD, MAX_BETWEEN = 1 << 16, 1 << 20


class Mp3Index(NamedTuple):
    """What the first frame of an MP3 tells of all others (Xing, Info).

    Parameters
    ----------
    n_samples
        In all frames, per channel.
    n_bytes
        Of all frames; None if it is not told.
    start
        First byte of these.
    """

    n_samples: int
    n_bytes: int | None
    start: int

    @classmethod
    def read(cls, file: BinaryIO) -> Self | None:
        """Find the index; None if there is none.

        Parameters
        ----------
        file
            Open at any place; it is moved.
        """
        start = _skip_id3(file)
        file.seek(start)
        head = file.read(MAX_SEARCH)
        for place in map(head.find, (b"Xing", b"Info")):
            for (is_first, is_mono), size in SIDE_INFORMATION.items():
                frame = max(place - size - 4, 0)
                header = head[frame : place - size]
                if not _is_frame(header, is_first=is_first, is_mono=is_mono):
                    continue
                flags, n_frames, n_bytes = struct.unpack(
                    ">3I", head[place + 4 : place + 16].ljust(12, b"\0")
                )
                if flags & 1:
                    told = n_bytes if flags & 2 else None
                    return cls(n_frames * FRAME_SAMPLES[is_first], told, start + frame)
        return None

    def tells_all(self, file_size: int) -> bool:
        """Tell whether nothing but tags follows what it tells of.

        Parameters
        ----------
        file_size
            In bytes.
        """
        return self.n_bytes is not None and file_size - self.start - self.n_bytes <= MAX_TAGS


def is_whole_ogg(file: BinaryIO) -> bool:
    """Tell whether an Ogg file is a single stream without holes.

    A page that is missing is told by the number of the next; sound that is missing, where somebody
    did not send any, by a position that is later than the packets of Opus explain.

    Parameters
    ----------
    file
        Open at any place; it is moved.
    """
    file.seek(0)
    number: int | None = None
    position: int | None = None
    is_opus = False
    while len(header := file.read(OGG_PAGE.size)) == OGG_PAGE.size:
        magic, _, flags, end, serial, found, _, n_sizes = OGG_PAGE.unpack(header)
        if magic != b"OggS":
            return True  # damaged, or something else behind it: decoding tells
        sizes = np.frombuffer(file.read(n_sizes), np.uint8)
        body = file.read(int(sizes.sum()))
        if number is None:
            first, is_opus = serial, body.startswith(b"OpusHead")
        elif serial != first or flags & OGG_BEGINS or found != number + 1:
            return False
        number = found
        if not is_opus or number < 2 or end <= 0:  # headers; or no packet ends here
            continue
        if position is not None and end - position > _count_opus(sizes, body) + MAX_JUMP:
            return False
        position = end
    return True


def is_followed(file: BinaryIO) -> bool:
    """Tell whether another recording is put behind that of a file, of WAV, AIFF, AU, CAF or FLAC.

    Parameters
    ----------
    file
        Open where a decoder that came to the end has left it; it is moved.
    """
    stopped = file.tell()
    start = _skip_id3(file)
    file.seek(start)
    head = file.read(HEAD_BYTES)
    if FLAC.match(head):
        # Where a stream ends, its header does not tell, but its decoder was there.
        first = max(start + 1, stopped - MAX_AHEAD)
        file.seek(first)
        return FLAC.search(file.read(stopped + MAX_BETWEEN - first)) is not None
    if head.startswith(CAF):
        return _is_caf_followed(file, start)
    size = _find_size(head)
    return size is not None and _find_recording(_read_at(file, start + size), size)


def _read_at(file: BinaryIO, place: int) -> bytes:
    """Return what it takes to tell what begins at a place in a file; nothing behind its end."""
    try:
        file.seek(place)
    except (OSError, OverflowError):  # who wrote it did not know where it would end
        return b""
    return file.read(HEAD_BYTES)


def _find_recording(behind: bytes, size: int) -> bool:
    """Tell whether a recording begins with some bytes, those behind so many others."""
    # Behind an odd number of bytes, one is left free.
    return any(
        RIFF.match(one) or one.startswith((AU, CAF)) or FLAC.match(one)
        for one in (behind, behind[1:] if size % 2 else b"")
    )


def _is_caf_followed(file: BinaryIO, start: int) -> bool:
    """Tell whether something else than a chunk is behind those of a CAF file: a recording.

    How long it is, it does not tell as a whole, and packets may be told of behind the sound.
    """
    place, size = start + 8, 0
    for _ in range(MAX_CHUNKS):
        head = _read_at(file, place)
        if _find_recording(head, size):
            return True
        # Some leave a byte free behind an odd number of them, which the format does not ask for.
        free = int(size % 2 and head.startswith(b"\0"))
        if len(head) < free + CAF_CHUNK.size:
            return False
        _, size = CAF_CHUNK.unpack_from(head, free)
        if size < 0:
            return False
        place += free + CAF_CHUNK.size + size
    return False


def _find_size(head: bytes) -> int | None:
    """Return the bytes of a recording of WAV, AIFF or AU, as it begins; None of others."""
    if len(head) < HEAD_BYTES:
        return None
    if head.startswith(AU):
        offset, size = struct.unpack_from(">2I", head, 4)
        return int(offset + size)
    if not RIFF.match(head):
        return None
    if head.startswith(LARGE_RIFF):
        return 8 + int.from_bytes(head[20:28], "little")
    return 8 + int.from_bytes(head[4:8], "big" if head[:4] in BIG_ENDIAN else "little")


def _count_opus(sizes: NDArray[np.uint8], body: bytes) -> int:
    """Return the samples of the packets that begin in a page."""
    ends = np.flatnonzero(sizes < 255)
    offsets = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)[ends]))
    content = np.frombuffer(body, np.uint8)
    offsets = offsets[offsets < len(content)]
    kinds = content[offsets]
    counts = np.array((1, 2, 2, 0))[kinds & 3]
    many = np.flatnonzero((kinds & 3 == 3) & (offsets + 1 < len(content)))
    counts[many] = content[offsets[many] + 1] & 63
    return int((OPUS_SAMPLES[kinds] * counts).sum())


def _skip_id3(file: BinaryIO) -> int:
    """Return where what follows the tags at the start begins."""
    start = 0
    while True:
        file.seek(start)
        header = file.read(10)
        if len(header) < 10 or header[:3] != b"ID3":
            return start
        size = 0
        for byte in header[6:]:
            size = size << 7 | byte & 127
        start += 10 + size + 10 * bool(header[5] & 0x10)


def _is_frame(header: bytes, *, is_first: bool, is_mono: bool) -> bool:
    """Tell whether bytes are the header of a frame of layer III, of such a kind."""
    return (
        len(header) == 4
        and header[0] == 0xFF
        and header[1] & 0xE6 == 0xE2
        and bool(header[1] & 0x08) == is_first
        and (header[3] >> 6 == 3) == is_mono
    )
