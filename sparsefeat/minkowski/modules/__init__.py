"""Blocks of residual networks (MinkowskiEngine.modules)."""
