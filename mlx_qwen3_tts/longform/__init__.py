"""Long texts: documents to chapters, segments, one audio file."""
