"""Frames straight from their files, whoever asks: it knows neither catalogs nor documents."""
