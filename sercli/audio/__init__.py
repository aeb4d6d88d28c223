"""Audio of recordings: streaming decoders, filters, codecs and augmentation."""

# Sample rate in Hz of speech detection and all models.
SAMPLE_RATE = 16_000
