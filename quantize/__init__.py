"""Calibrate and quantize a model, then say what it cost in quality."""
