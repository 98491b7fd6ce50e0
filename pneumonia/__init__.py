"""Chest X-ray classification: what training, promotion and inference share."""
