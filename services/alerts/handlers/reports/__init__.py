"""Reports as files for people: print-ready HTML with pictures, and CSV of items."""
