"""Corpora in the forms in which they are published, or in which people keep their own: to manifests, and checked."""
