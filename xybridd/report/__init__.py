"""The report as a page, as Markdown, as CSV: figures in, strings out; no file, no socket, no clock.

`page` is the HTML, put together from `sections`; `charts` draws SVG by the measures of `axes`; `text` has the forms of
numbers and times, and is the one place where what apps wrote is made harmless. `page.css` and `page.js` go into the
page as they are. `markdown` and `table` are the two other forms; JSON is the figures themselves.

The rules of the page: it asks nobody for anything (its policy forbids it), everything in it can be read without
scripts and without colours, and each chart has its table. Styles and positions are attributes and classes, since the
policy forbids style attributes.
"""
