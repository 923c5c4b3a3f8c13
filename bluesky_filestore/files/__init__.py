"""Frames out of data files, under the directories that may be read from. Nothing else opens data files."""
