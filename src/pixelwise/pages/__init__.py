"""What the HTML pages share: one file each, a common look, pictures inside, nothing fetched."""

from pixelwise.pages.page import css_colour, data_url, percent, write_page

__all__ = ["css_colour", "data_url", "percent", "write_page"]
