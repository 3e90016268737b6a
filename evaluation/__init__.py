"""Whether a model uses distant context: questions on long texts, made offline by any tokenizer, and their scores."""
