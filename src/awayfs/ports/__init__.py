"""Protocols with more than one implementation."""
