"""What the HTML pages share: one file each, a common look, images inside, nothing fetched."""

from pixelwise.pages.html_page import css_color, data_url, percent, write_page

__all__ = ["css_color", "data_url", "percent", "write_page"]
