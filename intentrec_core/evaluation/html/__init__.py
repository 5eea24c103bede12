"""The report of an evaluation as one HTML file: no request, no script, no library; pictures are inline SVG."""
