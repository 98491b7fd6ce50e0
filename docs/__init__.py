"""Papers, and the scripts that make their pictures."""
