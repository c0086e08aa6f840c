"""Prediction for many files: folders, videos, and images larger than memory."""
