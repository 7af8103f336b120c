"""From features to matches, and from matches of scans to poses."""
