"""Tests of the room launching."""
