"""Packed sequences over a corpus: from where they come (of_*), to shards that trainers read (export), and back."""
