"""Figures of `ser eval` as plots and as documents to read, print and keep."""
