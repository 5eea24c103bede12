"""Vectors in, neighbours out: exact and FAISS indexes behind one protocol, intent conditioning, filters, index files."""
