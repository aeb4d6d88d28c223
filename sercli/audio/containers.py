"""Length, gaps and trailing data of audio files, read from their containers.

Decoders ignore these: libsndfile takes the first stream of an Ogg file for the whole file and its
packets for contiguous, and FFmpeg decodes an MP3 as far as it goes, whatever its index says. In
WAV, AIFF, AU, CAF, FLAC, AVI and MP4 files, none looks beyond the end of the first recording.
"""

import os
import re
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Offset of the index behind the header of the first frame of an MP3, by whether it is MPEG 1 (else
# 2 or 2.5) and whether it is mono; and samples of a frame, by whether it is MPEG 1.
SIDE_INFORMATION = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
FRAME_SAMPLES = {True: 1152, False: 576}
# Bytes after the tags of an MP3 in which its first frame is searched for.
MAX_SEARCH = 4096
# Tags at the end of an MP3: ID3v1 has a fixed size, the others have theirs in a footer.
ID3V1_SIZE = 128
APE_FOOTER = struct.Struct("<8s4I8x")  # magic, version, size without the header, items, flags
APE_HAS_HEADER = 1 << 31
LYRICS_FOOTER = re.compile(rb"(\d{6})LYRICS200\Z")

OGG_PAGE = struct.Struct("<4sBBqIIIB")
OPUS_RATE = 48_000  # Hz, the rate of positions, whatever that of the sound
# Samples of a frame by the first byte of a packet, whose first five bits decide (RFC 6716, table
# 2): four sizes of SILK, two of hybrid, four of CELT.
OPUS_SAMPLES = np.repeat(
    np.array((*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)), 8
)
# Positions that exceed the samples of the packets by more than this mark a gap; less may be a
# packet that spans two pages.
MAX_JUMP = OPUS_RATE // 4

# Sizes of 32 bits begin again from 0 here: that of a WAV file above 4 GiB is too small.
WRAP = 1 << 32
# The first bytes of a WAV, AIFF or AVI recording. An AVI may continue in chunks of the type AVIX.
RIFF = re.compile(rb"(?:RIFF|RIFX|RF64|FORM)....(?:WAVE|AIF[FC]|AVI )", re.DOTALL)
LARGE_RIFF = b"RF64"  # its size is in its first chunk
# Beginnings of chunks and tags that programs append without correcting the size.
APPENDED = (b"LIST", b"id3 ", b"ID3", b"TAG", b"bext", b"iXML", b"_PMX", b"cue ", b"JUNK")
BIG_ENDIAN = frozenset((b"RIFX", b"FORM"))
AU = b".snd"
CAF = b"caff\0\1\0\0desc"  # with the name of its first chunk
CAF_CHUNK = struct.Struct(">4sq")  # name and size; -1 for a chunk that extends to the end
MP4_BOX = struct.Struct(">I4s")  # size and type
MP4_LARGE = 1  # instead of the size, which follows with 64 bits
# A CAF or MP4 file has few chunks; the search for a recording stops after this many.
MAX_CHUNKS = 1000
FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")  # with the header of its first block, STREAMINFO
# Bytes at the start of any of these from which its end can be found.
HEAD_BYTES = 28
# Bytes that a decoder reads ahead at most, and largest size of tags between two streams.
MAX_AHEAD, MAX_BETWEEN = 1 << 16, 1 << 20


def is_mp3(file: BinaryIO) -> bool:
    """Return whether a file begins with an MPEG audio frame, perhaps after ID3 tags.

    Parameters
    ----------
    file
        File open at any position, which is changed.
    """
    file.seek(_skip_id3(file))
    return _begins_frame(file.read(2))


class Mp3Index(NamedTuple):
    """What the index of an MP3 (Xing, Info) in its first frame tells.

    Parameters
    ----------
    n_samples
        Number of samples of all frames, per channel, with the silence that the encoder adds at both
        ends.
    start
        Position of the first frame in the file.
    n_bytes
        Number of bytes of all frames; None if it does not tell.
    """

    n_samples: int
    start: int
    n_bytes: int | None = None


def read_mp3_index(file: BinaryIO) -> Mp3Index | None:
    """Return the index of an MP3, or None if it has none that tells its length.

    Parameters
    ----------
    file
        File open at any position, which is changed.
    """
    skipped = file.seek(_skip_id3(file))
    head = file.read(MAX_SEARCH)
    for place in map(head.find, (b"Xing", b"Info")):
        for (is_first, is_mono), size in SIDE_INFORMATION.items():
            frame = max(place - size - 4, 0)
            header = head[frame : place - size]
            if not _is_frame(header, is_first=is_first, is_mono=is_mono):
                continue
            told = head[place + 4 : place + 16].ljust(12, b"\0")
            flags, n_frames, n_bytes = struct.unpack(">3I", told)
            if flags & 1:
                n_samples = int(n_frames * FRAME_SAMPLES[is_first])
                return Mp3Index(n_samples, skipped + frame, n_bytes if flags & 2 else None)
    return None


def find_mp3_end(file: BinaryIO) -> int:
    """Return the position at which the sound of an MP3 ends, and its tags begin if it has any.

    ID3v1, APE and Lyrics3 tags are recognised, in any order.

    Parameters
    ----------
    file
        File open at any position, which is changed.
    """
    end = file.seek(0, os.SEEK_END)
    while size := _find_tag(file, end):
        end -= size
    return end


def _find_tag(file: BinaryIO, end: int) -> int:
    """Return the size of the tag that ends at a position, or 0 if there is none."""
    start = max(0, end - ID3V1_SIZE)
    file.seek(start)
    tail = file.read(end - start)
    size = 0
    if len(tail) == ID3V1_SIZE and tail.startswith(b"TAG"):
        size = ID3V1_SIZE
    elif found := LYRICS_FOOTER.search(tail):
        size = int(found[1]) + len(found[0])
    elif len(tail) >= APE_FOOTER.size:
        magic, _, n_bytes, _, flags = APE_FOOTER.unpack(tail[-APE_FOOTER.size :])
        if magic == b"APETAGEX":
            size = n_bytes + (APE_FOOTER.size if flags & APE_HAS_HEADER else 0)
    return size if size <= end else 0


def is_whole_ogg(file: BinaryIO) -> bool:
    """Return whether a file has a single Ogg stream without gaps, or is no Ogg file.

    A missing page shows in the number of the next. Sound that was never sent, as in pauses of a
    transmission, shows in a position that is later than the Opus packets explain.

    Parameters
    ----------
    file
        File open at any position, which is changed.
    """
    file.seek(0)
    number: int | None = None
    position: int | None = None
    is_opus = False
    while len(header := file.read(OGG_PAGE.size)) == OGG_PAGE.size:
        magic, _, _, end, serial, found, _, n_sizes = OGG_PAGE.unpack(header)
        if magic != b"OggS":
            return True  # damaged, or followed by something else: decoding will show
        sizes = np.frombuffer(file.read(n_sizes), np.uint8)
        body = file.read(int(sizes.sum()))
        if number is None:
            first, is_opus = serial, body.startswith(b"OpusHead")
        elif serial != first or found != number + 1:
            return False
        number = found
        if not is_opus or number < 2 or end <= 0:  # headers; or no packet ends here
            continue
        if position is not None and end - position > _count_opus(sizes, body) + MAX_JUMP:
            return False
        position = end
    return True


def find_wrapped_size(file: BinaryIO) -> int | None:
    """Return where a WAV file has the size of its sound, if it lacks some multiple of 4 GiB.

    Parameters
    ----------
    file
        File open at any position, which is changed.

    Returns
    -------
    int or None
        Position of the size; None if it is right, or the file is no WAV file.
    """
    head = _read_at(file, 0)
    size = _find_size(head) if head.startswith(b"RIFF") else None
    n_behind = 0 if size is None else file.seek(0, os.SEEK_END) - size
    if n_behind < WRAP or n_behind % WRAP > 1:  # a byte may follow for padding
        return None
    place = 12
    for _ in range(MAX_CHUNKS):
        head = _read_at(file, place)
        if head.startswith(b"data"):
            return place + 4
        if len(head) < HEAD_BYTES:
            break
        size = int.from_bytes(head[4:8], "little")
        place += 8 + size + size % 2
    return None


def measure_rest(file: BinaryIO) -> float:
    """Return how much follows the recording in a WAV or AIFF file, relative to its own size.

    A recorder that broke off may leave a header that tells of the first part only. Tags and a few
    bytes do not count.

    Parameters
    ----------
    file
        File open at the position where a decoder left it after decoding to the end. The position is
        changed.
    """
    stopped, n_bytes = file.tell(), file.seek(0, os.SEEK_END)
    size = _find_size(head := _read_at(file, 0))
    if size is None or head.startswith(AU) or b"AVI " in head[:12]:
        return 0.0
    size = max(size, stopped)  # where the header has none, the decoder goes on to the end
    if n_bytes - size <= MAX_AHEAD or _read_at(file, size).startswith(APPENDED):
        return 0.0
    return (n_bytes - size) / size


def is_followed(file: BinaryIO) -> bool:
    """Return whether a file has a second recording after the first, which no decoder reads.

    That is known of WAV, AIFF, AU, CAF, FLAC, AVI and MP4 files.

    Parameters
    ----------
    file
        File open at the position where a decoder left it after decoding to the end. The position is
        changed.
    """
    stopped = file.tell()
    start = _skip_id3(file)
    file.seek(start)
    head = file.read(HEAD_BYTES)
    if FLAC.match(head):
        # The header does not have the size of the stream, but the decoder stopped near its end.
        first = max(start + 1, stopped - MAX_AHEAD)
        file.seek(first)
        return FLAC.search(file.read(stopped + MAX_BETWEEN - first)) is not None
    if head.startswith(CAF):
        return _is_caf_followed(file, start)
    if head[4:8] == b"ftyp":
        return _is_mp4_followed(file)
    size = _find_size(head)
    return size is not None and _find_recording(_read_at(file, start + size), size)


def _read_at(file: BinaryIO, place: int) -> bytes:
    """Return the first bytes at a position in a file; none beyond its end."""
    try:
        file.seek(place)
    except (OSError, OverflowError):  # the size was not known when the header was written
        return b""
    return file.read(HEAD_BYTES)


def _find_recording(behind: bytes, size: int) -> bool:
    """Return whether a recording begins with the bytes that follow `size` others."""
    # An odd number of bytes is followed by one for padding.
    return any(
        RIFF.match(one) or one.startswith((AU, CAF)) or FLAC.match(one)
        for one in (behind, behind[1:] if size % 2 else b"")
    )


def _is_caf_followed(file: BinaryIO, start: int) -> bool:
    """Return whether a recording follows the chunks of a CAF file.

    All chunks have to be walked through: the header has no total size, and the packet table may
    come after the audio.
    """
    place, size = start + 8, 0
    for _ in range(MAX_CHUNKS):
        head = _read_at(file, place)
        if _find_recording(head, size):
            return True
        # Some programs pad chunks of an odd size by a byte, which the format does not ask for.
        free = int(size % 2 and head.startswith(b"\0"))
        if len(head) < free + CAF_CHUNK.size:
            return False
        _, size = CAF_CHUNK.unpack_from(head, free)
        if size < 0:
            return False
        place += free + CAF_CHUNK.size + size
    return False


def _is_mp4_followed(file: BinaryIO) -> bool:
    """Return whether an MP4 file has another file type box after the first."""
    place = 0
    for _ in range(MAX_CHUNKS):
        head = _read_at(file, place)
        if len(head) < MP4_BOX.size:
            return False
        size, kind = MP4_BOX.unpack_from(head)
        if kind == b"ftyp" and place:
            return True
        if size == MP4_LARGE:
            size = int.from_bytes(head[8:16], "big")
        if size < MP4_BOX.size:  # 0: to the end
            return False
        place += size
    return False


def _find_size(head: bytes) -> int | None:
    """Return the bytes of a WAV, AIFF, AVI or AU recording, from its first bytes; else None."""
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
    """Return the number of samples of the Opus packets that begin in a page."""
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
    """Return the position after the ID3 tags at the start of a file."""
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


def _begins_frame(header: bytes) -> bool:
    """Return whether bytes begin with the sync word of MPEG audio: eleven bits that are set."""
    return len(header) >= 2 and header[0] == 0xFF and header[1] & 0xE0 == 0xE0


def _is_frame(header: bytes, *, is_first: bool, is_mono: bool) -> bool:
    """Return whether bytes are the header of an MPEG layer III frame of the given kind."""
    return (
        len(header) == 4
        and _begins_frame(header)
        and header[1] & 0x06 == 0x02
        and bool(header[1] & 0x08) == is_first
        and (header[3] >> 6 == 3) == is_mono
    )
