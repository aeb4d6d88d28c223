"""Audio of recordings: streaming decoders, filters, codecs and augmentation."""
