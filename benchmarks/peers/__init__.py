"""What people would use instead, on the same data: scripts, and other projects' programs in environments of their own."""
