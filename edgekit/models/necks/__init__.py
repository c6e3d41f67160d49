"""Necks: maps in, maps out; they fuse what the backbone saw at several resolutions."""
