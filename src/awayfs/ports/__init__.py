"""Protocols with more than one implementation.

``remote`` says what a server must offer, whatever it speaks: reading, guarded changes, and
finding out how an interrupted one ended. The conformance suite in ``tests/`` holds every
adapter to it.
"""
