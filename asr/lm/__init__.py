"""N-gram language models: built from text with Kneser-Ney smoothing, read and asked with KenLM."""
