"""Recognizing operators in every form that exporters write."""
