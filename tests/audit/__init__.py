"""Audits of training steps."""
