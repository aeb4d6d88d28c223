"""Duration of damaged parts of MP3s."""

from typing import TYPE_CHECKING, Any

from sercli.audio.containers import Mp3Index

if TYPE_CHECKING:
    from av.packet import Packet

# Bytes by which an MP3 may be longer than its index tells, such as a frame more.
SLACK = 1500


class LostSound:
    """Duration of the sound that damage in an MP3 replaces, estimated from numbers of bytes.

    FFmpeg takes all bytes up to the next sound frame for a single one, and counts time by frames.

    Parameters
    ----------
    index
        Index of the MP3.
    end
        Position in the file at which the sound ends.
    sample_rate
        Sample rate in Hz.

    Attributes
    ----------
    seconds
        Duration so far, in seconds.
    """

    def __init__(self, index: Mp3Index, end: int, sample_rate: int) -> None:
        self.seconds = 0.0
        self._end, self._promised = end, index.n_samples / sample_rate
        # Whether bytes may have been inserted.
        self._is_longer = index.n_bytes is None or end - index.start > index.n_bytes + SLACK
        self._n_bytes = 0  # of the frames that were decoded
        self._decoded = self._passed = 0.0

    def keep(self, packet: "Packet[Any]") -> None:
        """Count a frame that was decoded."""
        seconds = float((packet.duration or 0) * (packet.time_base or 0))
        self._n_bytes += packet.size
        self._decoded += seconds
        self._passed += seconds

    def lose(self, packet: "Packet[Any]") -> None:
        """Count bytes that are no frame."""
        seconds = float((packet.duration or 0) * (packet.time_base or 0))
        self._passed += seconds
        if not self._decoded or packet.pos is None:
            return
        rate = self._n_bytes / self._decoded
        missing = self._promised - self._passed - self.seconds
        if self._is_longer:
            # They may have been inserted, such as a tag between two recordings: then what follows
            # is all that is missing.
            missing -= (self._end - packet.pos - packet.size) / rate
        self.seconds += max(0.0, min(packet.size / rate - seconds, missing))
