"""Packed shards in, a model trained on them out: PyTorch FSDP2, attention inside documents, 64K to 512K tokens."""
