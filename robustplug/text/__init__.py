"""Text: its words, how an attack changed them, records of attacked texts, and word embeddings."""
