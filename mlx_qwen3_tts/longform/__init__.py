"""Books: a document to segments, segments to speech, speech to a file with chapters.

Document.open ─ plan ─ Renderer (make, assemble); render does all of it
"""

from .document import Block, Chapter, Document, Dropped, read_document, select_chapters
from .options import BookOptions
from .plan import Plan, Segment, plan
from .pronounce import Pronunciation
from .render import Flaw, RenderedBook, Renderer, render

__all__ = [
    "Block",
    "BookOptions",
    "Chapter",
    "Document",
    "Dropped",
    "Flaw",
    "Plan",
    "Pronunciation",
    "RenderedBook",
    "Renderer",
    "Segment",
    "plan",
    "read_document",
    "render",
    "select_chapters",
]
