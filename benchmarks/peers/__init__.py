"""What people would use instead, on the same data: scripts, and other projects' programs in their own environments."""
