"""Item search: exact, pruned and FAISS indexes with one interface, intent conditioning, filters, and index files."""
