"""Audio of recordings: decoded as a stream, filtered, sent through codecs, changed."""
