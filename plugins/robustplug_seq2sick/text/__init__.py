"""Sentences: vocabularies, data, and decoding."""
