"""Images that are segmented tile by tile: larger than memory should hold, or with a georeference to keep."""
