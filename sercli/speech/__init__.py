"""Voice activity detection, segmentation and speakers of recordings."""
