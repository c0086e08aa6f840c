"""Self-contained HTML pages: a common style, images inside, nothing loaded from the network."""

from pixelwise.pages.html_page import css_color, data_url, percent, write_page

__all__ = ["css_color", "data_url", "percent", "write_page"]
