"""Prediction of many files: folders, videos, and images larger than memory."""
