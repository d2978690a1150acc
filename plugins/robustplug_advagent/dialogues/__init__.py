"""Negotiations: scenarios, dialogues, and the rules of the game."""
