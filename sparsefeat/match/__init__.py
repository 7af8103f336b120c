"""From features to matches."""
