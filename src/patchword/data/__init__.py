"""Vocabularies, images, masks and the folders that they live in."""
