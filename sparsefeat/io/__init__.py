"""Files of any kind, read and written; nothing about features."""
